//! Statements as tokens, and a cursor over the tokens of one statement for the forms that no parser knows.

use sqlparser::ast::ObjectName;
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace, Word};

use super::{Session, SqlError};

const DIALECT: MySqlDialect = MySqlDialect {};

/// Expressions may nest this deep.
const DEPTH_MAX: usize = 200;

/// The statements of a text, each as its tokens, without blanks and comments save hints.
pub(crate) fn split(text: &str) -> Result<Vec<Vec<Token>>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize().map_err(SqlError::syntax)?;
    let mut statements = vec![Vec::new()];
    for token in tokens {
        match token {
            Token::SemiColon => statements.push(Vec::new()),
            Token::EOF => {}
            Token::Whitespace(Whitespace::MultiLineComment(text)) if text.starts_with('+') => {
                let hint = Token::Whitespace(Whitespace::MultiLineComment(text));
                statements.last_mut().expect("never empty").push(hint);
            }
            Token::Whitespace(_) => {}
            token => statements.last_mut().expect("never empty").push(token),
        }
    }
    statements.retain(|statement| !statement.is_empty());
    Ok(statements)
}

/// A cursor over one statement.
pub(crate) struct Words {
    tokens: Vec<Token>,
    at: usize,
}

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) db: String,
    pub(crate) table: String,
}

impl Words {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        let hint = |token: &Token| matches!(token, Token::Whitespace(_));
        let at = tokens.iter().take_while(|token| hint(token)).count();
        Self { tokens, at }
    }

    /// Tokens not taken yet.
    pub(crate) fn into_rest(mut self) -> Vec<Token> {
        self.tokens.split_off(self.at)
    }

    /// A parser over what is left.
    pub(crate) fn into_parser(self) -> Parser<'static> {
        Parser::new(&DIALECT).with_recursion_limit(DEPTH_MAX).with_tokens(self.into_rest())
    }

    /// Every hint of the statement: the texts between `/*+` and `*/`.
    pub(crate) fn hints(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Whitespace(Whitespace::MultiLineComment(text)) => text.strip_prefix('+'),
            _ => None,
        })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    pub(crate) fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The next token if it is a word or identifier.
    pub(crate) fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(&word.value),
            _ => None,
        }
    }

    /// Whether the token `ahead` of the next one is this word or sign.
    pub(crate) fn is_at(&self, ahead: usize, expected: &str) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.to_string().eq_ignore_ascii_case(expected))
    }

    /// Takes the next tokens if they are these words or signs, in any case.
    pub(crate) fn eat(&mut self, expected: &str) -> bool {
        let words: Vec<&str> = expected.split(' ').collect();
        let all = words.iter().enumerate().all(|(ahead, word)| self.is_at(ahead, word));
        if all {
            self.at += words.len();
        }
        all
    }

    pub(crate) fn expect(&mut self, expected: &str) -> Result<(), SqlError> {
        if self.eat(expected) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error for a token that has no place here.
    pub(crate) fn unexpected(&self) -> SqlError {
        match self.peek() {
            Some(token) => SqlError::syntax(format_args!("Unexpected input '{token}'")),
            None => SqlError::syntax("Unexpected end of the statement"),
        }
    }

    /// An identifier, quoted or not.
    pub(crate) fn identifier(&mut self) -> Result<String, SqlError> {
        match self.next() {
            Some(Token::Word(Word { value, .. })) => Ok(value),
            _ => {
                self.at = self.at.saturating_sub(1);
                Err(self.unexpected())
            }
        }
    }

    /// A string literal, a number or a bare word: the text of a setting.
    pub(crate) fn value(&mut self) -> Result<String, SqlError> {
        let minus = self.eat("-");
        match self.next() {
            Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) => Ok(text),
            Some(Token::Word(word)) => Ok(word.value),
            Some(Token::Number(number, _)) => Ok(if minus { format!("-{number}") } else { number }),
            _ => {
                self.at = self.at.saturating_sub(1);
                Err(self.unexpected())
            }
        }
    }

    /// A string literal.
    pub(crate) fn string(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) => self.value(),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u32, SqlError> {
        match self.peek() {
            Some(Token::Number(number, _)) if number.parse::<u32>().is_ok() => {
                let number = number.parse().map_err(|_| self.unexpected());
                self.at += 1;
                number
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `table`, `db.table` or `catalog.db.table`.
    pub(crate) fn table_name(&mut self, session: &Session) -> Result<TableName, SqlError> {
        TableName::from_parts(self.name_parts()?, session)
    }

    /// Identifiers with dots between them.
    pub(crate) fn name_parts(&mut self) -> Result<Vec<String>, SqlError> {
        let mut parts = vec![self.identifier()?];
        while self.eat(".") {
            parts.push(self.identifier()?);
        }
        Ok(parts)
    }

    /// Names in parentheses, separated by commas.
    pub(crate) fn names_in_parentheses(&mut self) -> Result<Vec<String>, SqlError> {
        self.expect("(")?;
        let mut names = Vec::new();
        loop {
            names.push(self.identifier()?);
            if self.eat(")") {
                return Ok(names);
            }
            self.expect(",")?;
        }
    }

    /// The text of a balanced pair of parentheses, without them.
    pub(crate) fn parenthesized(&mut self) -> Result<String, SqlError> {
        self.expect("(")?;
        let start = self.at;
        let mut depth = 1;
        while let Some(token) = self.next() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(joined(&self.tokens[start..self.at - 1]));
            }
        }
        Err(self.unexpected())
    }
}

/// Tokens as text again.
fn joined(tokens: &[Token]) -> String {
    let mut text = String::new();
    for (at, token) in tokens.iter().enumerate() {
        let tight = matches!(token, Token::Comma | Token::RParen | Token::LParen | Token::Period)
            || at
                .checked_sub(1)
                .is_some_and(|before| matches!(tokens[before], Token::LParen | Token::Period));
        if at > 0 && !tight {
            text.push(' ');
        }
        text.push_str(&token.to_string());
    }
    text
}

impl TableName {
    pub(crate) fn resolve(name: &ObjectName, session: &Session) -> Result<Self, SqlError> {
        let parts =
            name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.clone()).collect();
        Self::from_parts(parts, session)
    }

    pub(crate) fn from_parts(mut parts: Vec<String>, session: &Session) -> Result<Self, SqlError> {
        let table = parts.pop().ok_or_else(|| SqlError::syntax("a table has no name"))?;
        let db = match parts.pop() {
            Some(db) => db,
            None => session.database.clone().ok_or_else(SqlError::no_database)?,
        };
        Ok(Self { db, table })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_at_semicolons_outside_of_strings() {
        let statements = split("select ';' ; -- one\n select 2;; ").unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0].len(), 2);
    }

    #[test]
    fn hints_survive_and_comments_do_not() {
        let statements = split("select /*+ SET_VAR(query_timeout=5) */ /* x */ 1").unwrap();
        let words = Words::new(statements.into_iter().next().unwrap());
        assert_eq!(words.hints().collect::<Vec<_>>(), [" SET_VAR(query_timeout=5) "]);
        assert_eq!(words.into_rest().len(), 3);
    }
}

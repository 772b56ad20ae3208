//! Bearer tokens. A token file has a line `ROLE TOKEN` for each; several lines of one role are all good, so that a token
//! can be replaced without a moment at which nobody is let in. Servers keep keyed hashes, never the tokens; comparing
//! takes the same time whatever is sent.

use std::path::Path;

use ring::hmac;
use ring::rand::SystemRandom;
use starlift_common::datasource::Secret;
use starlift_common::problem::{Code, Problem};

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Look at jobs, workers and metrics.
    Read,
    /// All that a person may: look, submit, steer.
    User,
    /// Lease and report tasks. Worth as much as a user's: who reports tasks decides what is committed.
    Worker,
}

impl Role {
    const ALL: [Self; 3] = [Self::Read, Self::User, Self::Worker];

    /// As a token file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Worker => "worker",
        }
    }

    /// Whether who has this role may do what `needed` stands for.
    fn covers(self, needed: Self) -> bool {
        self == needed || (self == Self::User && needed == Self::Read)
    }
}

/// Why a caller is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a token is needed")]
    NoToken,
    #[error("the token is not known here")]
    UnknownToken,
    #[error("this needs a {} token, not a {} token", .needed.as_str(), .has.as_str())]
    WrongRole { has: Role, needed: Role },
    #[error("a client certificate is needed")]
    NoCertificate,
    #[error("without tokens this port answers only to this host's own names")]
    ForeignName,
}

/// The tokens that a server accepts.
pub struct Tokens {
    key: hmac::Key,
    known: Vec<(Role, hmac::Tag)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} tokens", self.known.len())
    }
}

impl Tokens {
    pub fn new(lines: &[(Role, Secret)]) -> Result<Self, Problem> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Problem::new(Code::Internal, "the system gives no random numbers"))?;
        let known = lines.iter().map(|(role, token)| (*role, hmac::sign(&key, token.expose().as_bytes())));
        Ok(Self { known: known.collect(), key })
    }

    /// As whom a call with this token may do what `needed` stands for: with the most that the token is good for.
    pub fn admit(&self, token: Option<&[u8]>, needed: Role) -> Result<Role, Refusal> {
        let token = token.ok_or(Refusal::NoToken)?;
        // Every known token is compared, so that the time tells nothing.
        let matching = |(role, tag): &(Role, hmac::Tag)| {
            hmac::verify(&self.key, token, tag.as_ref()).is_ok().then_some(*role)
        };
        let roles: Vec<Role> =
            self.known.iter().map(matching).collect::<Vec<_>>().into_iter().flatten().collect();
        let has = *roles.first().ok_or(Refusal::UnknownToken)?;
        let good = roles.into_iter().filter(|role| role.covers(needed));
        good.max_by_key(|role| role.covers(Role::User)).ok_or(Refusal::WrongRole { has, needed })
    }
}

/// The token of an `authorization` header: `Bearer TOKEN`.
pub fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The lines of a token file. A fault names the line, never what stands in it.
pub fn read(path: &Path) -> Result<Vec<(Role, Secret)>, Problem> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(Code::InvalidSettings, format!("cannot read the token file: {error}")).at(place.clone())
    })?;
    parse(&text).map_err(|problem| {
        let place = format!("{place} {}", problem.place).trim_end().to_owned();
        problem.at(place)
    })
}

fn parse(text: &str) -> Result<Vec<(Role, Secret)>, Problem> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |message: &str| {
            let problem = Problem::new(Code::InvalidSettings, message).at(format!("line {number}"));
            problem
                .hint("write `worker TOKEN`, `user TOKEN` or `read TOKEN`, e.g. with `openssl rand -hex 32`")
        };
        let (role, token) =
            line.split_once(char::is_whitespace).ok_or_else(|| bad("a role or its token is missing"))?;
        let role = Role::ALL
            .into_iter()
            .find(|known| known.as_str() == role)
            .ok_or_else(|| bad("the role is unknown"))?;
        let token = token.trim();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("a token consists of visible ASCII characters without blanks"));
        }
        if token.len() < SHORTEST {
            return Err(bad("the token is shorter than 16 characters"));
        }
        lines.push((role, Secret::new(token)));
    }
    if lines.is_empty() {
        return Err(Problem::new(Code::InvalidSettings, "the token file holds no token"));
    }
    Ok(lines)
}

/// The token that a caller of this role sends: the first of its lines.
pub fn of_role(lines: Vec<(Role, Secret)>, role: Role) -> Option<Secret> {
    lines.into_iter().find_map(|(has, token)| has.covers(role).then_some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# of the cluster\nworker wwwwwwwwwwwwwwww\nuser uuuuuuuuuuuuuuuu\nuser vvvvvvvvvvvvvvvv\nread rrrrrrrrrrrrrrrr\n";

    fn admit(header: Option<&str>, needed: Role) -> Result<(), Refusal> {
        let tokens = Tokens::new(&parse(FILE).expect("a good file")).expect("random numbers");
        tokens.admit(header.and_then(|header| bearer(header.as_bytes())), needed).map(|_| ())
    }

    #[test]
    fn every_role_opens_its_own_doors() {
        for (token, opens) in [
            ("wwwwwwwwwwwwwwww", [false, false, true]),
            ("uuuuuuuuuuuuuuuu", [true, true, false]),
            ("vvvvvvvvvvvvvvvv", [true, true, false]),
            ("rrrrrrrrrrrrrrrr", [true, false, false]),
        ] {
            let header = format!("bEARER {token}");
            let opened = Role::ALL.map(|needed| admit(Some(&header), needed).is_ok());
            assert_eq!(opened, opens, "{token}");
        }
        let refused = admit(Some("Bearer rrrrrrrrrrrrrrrr"), Role::User).unwrap_err();
        assert_eq!(refused.to_string(), "this needs a user token, not a read token");
    }

    #[test]
    fn a_token_of_several_roles_counts_as_the_one_that_may_most() {
        let lines = parse("read bbbbbbbbbbbbbbbb\nuser bbbbbbbbbbbbbbbb\n").expect("a good file");
        let tokens = Tokens::new(&lines).expect("random numbers");
        assert_eq!(tokens.admit(Some(b"bbbbbbbbbbbbbbbb"), Role::Read), Ok(Role::User));
    }

    #[test]
    fn what_is_no_known_token_opens_nothing() {
        assert_eq!(admit(None, Role::Read), Err(Refusal::NoToken));
        for header in ["", "Bearer", "Basic dXNlcg==", "uuuuuuuuuuuuuuuu"] {
            assert_eq!(admit(Some(header), Role::Read), Err(Refusal::NoToken), "{header}");
        }
        for header in ["Bearer ", "Bearer uuuuuuuuuuuuuuu", "Bearer uuuuuuuuuuuuuuuuu"] {
            assert_eq!(admit(Some(header), Role::Read), Err(Refusal::UnknownToken), "{header}");
        }
    }

    #[test]
    fn a_fault_in_a_token_file_names_its_line_and_not_the_token() {
        for (text, line) in [
            ("worker wwwwwwwwwwwwwwww\nadmin secretsecretsecret", "line 2"),
            ("secretsecretsecret", "line 1"),
            ("user secret", "line 1"),
            ("user secretsecretsecret secretsecret", "line 1"),
            ("# nothing\n\n", ""),
        ] {
            let problem = parse(text).expect_err(text);
            assert_eq!(problem.place, line, "{text}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_caller_sends_the_first_token_of_its_role() {
        let lines = || parse(FILE).expect("a good file");
        let token = |role| of_role(lines(), role).map(|token| token.expose().to_owned());
        assert_eq!(token(Role::User).as_deref(), Some("uuuuuuuuuuuuuuuu"));
        assert_eq!(token(Role::Worker).as_deref(), Some("wwwwwwwwwwwwwwww"));
        assert!(!format!("{:?}", Tokens::new(&lines())).contains("uuuu"));
    }
}

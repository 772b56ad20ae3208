//! The terminal that stderr may be: draws a few lines in place, again and again, and lets everything else that goes to
//! stderr, such as log lines, pass above them. Knows nothing about jobs.
//!
//! The cursor is never hidden and rests under the picture, so that there is nothing to put right whatever way the
//! process ends. A picture is written over the last one in one write, which is what keeps it from flickering.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::view::{self, Style};

/// Lines and columns of a terminal that does not tell.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Stderr, shared by whoever writes there.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    understands_codes: bool,
    style: Style,
    drawn: Arc<Mutex<Vec<String>>>,
}

impl Screen {
    pub(crate) fn stderr() -> Self {
        Self {
            understands_codes: understands_codes(&std::io::stderr()),
            style: style(|name| std::env::var(name).ok()),
            drawn: Arc::default(),
        }
    }

    /// Whether pictures and colours are for this screen; else it is for plain lines.
    pub(crate) fn understands_codes(&self) -> bool {
        self.understands_codes
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Puts the lines that `picture` makes for a width in the place of those that are there.
    pub(crate) fn draw(&self, picture: impl FnOnce(usize) -> Vec<String>) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let (height, columns) = size();
        // The last column stays free: a terminal that has written there waits on the edge of the next line. So does the
        // last line: lines above the screen cannot be reached again.
        let mut lines = picture(columns.saturating_sub(1));
        lines.truncate(height.saturating_sub(1));
        write(&(back_over(&drawn, columns) + &below(&lines)));
        *drawn = lines;
    }

    /// Prints text, or whatever it is, above the picture.
    pub(crate) fn print(&self, text: &str) {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.is_empty() {
            return write(text);
        }
        let end = if text.ends_with('\n') { "" } else { "\r\n" };
        let text = text.replace('\n', "\u{1b}[K\r\n");
        write(&(back_over(&drawn, size().1) + &text + end + &below(&drawn)));
    }

    /// Takes the picture away.
    pub(crate) fn clear(&self) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if !drawn.is_empty() {
            write(&(back_over(&drawn, size().1) + &below(&[])));
            drawn.clear();
        }
    }
}

/// Whoever logs writes whole lines, one in a call.
impl Write for Screen {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.print(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Codes and colours are for people at a terminal that knows them, who have not asked to be spared them.
pub(crate) fn understands_codes(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What the locale can show; of the variables the first one that is not empty counts.
fn style(variable: impl Fn(&str) -> Option<String>) -> Style {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default().to_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") { Style::Unicode } else { Style::Ascii }
}

/// Lines and columns, as they are now.
fn size() -> (usize, usize) {
    let (lines, columns) = match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => USUAL_SIZE,
    };
    (lines.into(), columns.into())
}

/// To the beginning of the picture. A window that has become narrower since has broken its lines.
fn back_over(drawn: &[String], columns: usize) -> String {
    match drawn.iter().map(|line| view::cells(line).div_ceil(columns).max(1)).sum::<usize>() {
        0 => String::new(),
        lines => format!("\r\u{1b}[{lines}A"),
    }
}

/// The lines, each over what is there, and nothing under them.
fn below(lines: &[String]) -> String {
    let mut text: String = lines.iter().flat_map(|line| [line, "\u{1b}[K\r\n"]).collect();
    text.push_str("\u{1b}[J");
    text
}

/// A terminal that went away is no reason to stop.
fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _terminal_gone = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_which_shapes_can_be_shown() {
        let locale = |variables: &'static [(&str, &str)]| {
            style(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(locale(&[]), Style::Ascii);
        assert_eq!(locale(&[("LANG", "C.UTF-8")]), Style::Unicode);
        assert_eq!(locale(&[("LANG", "zh_CN.utf8"), ("LC_ALL", "")]), Style::Unicode);
        assert_eq!(locale(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), Style::Ascii);
        assert_eq!(locale(&[("LANG", "zh_CN.GB18030")]), Style::Ascii);
        assert_eq!(locale(&[("LC_CTYPE", "UTF-8"), ("LANG", "C")]), Style::Unicode);
    }

    #[test]
    fn a_narrower_window_has_broken_the_lines() {
        let lines = ["\u{1b}[32m0123456789\u{1b}[0m".to_owned(), String::new(), "0123".into()];
        assert_eq!(back_over(&lines, 80), "\r\u{1b}[3A");
        assert_eq!(back_over(&lines, 10), "\r\u{1b}[3A");
        assert_eq!(back_over(&lines, 4), "\r\u{1b}[5A");
        assert_eq!(back_over(&[], 80), "");
    }

    #[test]
    fn a_picture_leaves_nothing_of_a_longer_one() {
        assert_eq!(below(&["a".into(), "b".into()]), "a\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J");
    }
}

//! What goes to the person: notes on standard error, results on standard output.

use std::io::{self, IsTerminal, Write};

/// Writes one line of progress. A closed terminal is no reason to stop.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Writes one line of a result.
pub(crate) fn say(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout(), "{}", text.as_ref())
}

/// Whether progress can be drawn over itself.
pub(crate) fn is_drawable() -> bool {
    io::stderr().is_terminal()
}

/// Replaces what could steer a terminal: text of a mail or of an error may hold anything.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

/// A number of bytes for a person.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}

//! Names for files that people download. A name comes from whoever uploaded the source, or from whoever made them do it.

/// Longest name, in bytes: file systems take 255, and browsers add a number to what is there already.
const MAX_BYTES: usize = 200;
/// Longest ending that is kept when a name is cut.
const MAX_ENDING_BYTES: usize = 16;
/// The name of what has none left.
const NAMELESS: &str = "file";

/// A name that is only a name on every system: one path segment, visible, and read in the order that it is stored in.
///
/// What could lead elsewhere or mean something to a shell or a file system becomes `_`; what is invisible, and could make
/// `gpj.exe` look like `exe.jpg`, is dropped.
#[must_use]
pub fn safe(name: &str) -> String {
    let visible = name.chars().filter(|c| !is_invisible(*c)).map(|c| match c {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
        c => c,
    });
    let visible: String = visible.collect();
    // Leading dots hide a file, or name a folder; Windows drops trailing ones.
    match visible.trim_matches(|c: char| c == '.' || c.is_whitespace()) {
        "" => NAMELESS.to_owned(),
        safe if safe.len() > MAX_BYTES => shortened(safe),
        safe => safe.to_owned(),
    }
}

/// The name without its ending.
#[must_use]
pub fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    }
}

/// Control characters, line and paragraph separators, marks that change the direction of text, and what has no width.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The beginning of a name, and its ending if that is one.
fn shortened(name: &str) -> String {
    let ending = match name.rsplit_once('.') {
        Some((_, ending)) if ending.len() < MAX_ENDING_BYTES => &name[name.len() - ending.len() - 1..],
        _ => "",
    };
    let mut end = MAX_BYTES - ending.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", name[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn u10_hostile_names_become_names() {
        for (name, expected) in [
            ("holiday.mov", "holiday.mov"),
            ("Ferien am Meer – 2026 🌊.mp4", "Ferien am Meer – 2026 🌊.mp4"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("C:\\autoexec.bat", "C__autoexec.bat"),
            ("a\r\nSet-Cookie: x=1.mp4", "aSet-Cookie_ x=1.mp4"),
            ("\u{202e}gpj.exe", "gpj.exe"),
            ("\"quoted\".mp4", "_quoted_.mp4"),
            (".hidden", "hidden"),
            ("zero\u{200b}width.mp4", "zerowidth.mp4"),
            ("..", NAMELESS),
            ("", NAMELESS),
        ] {
            assert_eq!(safe(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let long = format!("{}.mp4", "ä".repeat(150));
        let safe = safe(&long);
        assert!(safe.len() <= MAX_BYTES && safe.ends_with("ä.mp4"), "{safe}");
    }

    #[test]
    fn a_stem_is_never_empty() {
        assert_eq!(stem("a.b.mp4"), "a.b");
        assert_eq!(stem("none"), "none");
        assert_eq!(stem(".mp4"), ".mp4");
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_path_segment(name in any::<String>()) {
            let safe = safe(&name);
            prop_assert!((1..=MAX_BYTES).contains(&safe.len()));
            prop_assert!(!safe.contains(['/', '\\', '"', '\r', '\n', '\0']) && !safe.starts_with('.'));
        }
    }
}

//! Splits the command of a crontab line or of a unit into words, as a shell does as far as that is certain without one.
//! It must never expand a variable other than the home folder, nor run anything.

use std::path::{Path, PathBuf};

/// The simple commands of a shell text: quotes are removed, and operators separate one command from the next.
pub(super) fn split_commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), _) => word.get_or_insert_default().push(char),
            (None, _) if char.is_whitespace() => end_word(&mut commands, &mut word),
            (None, ';' | '&' | '|' | '(' | ')') => {
                end_word(&mut commands, &mut word);
                commands.push(Vec::new());
            }
            (None, _) => word.get_or_insert_default().push(char),
        }
    }
    end_word(&mut commands, &mut word);
    commands.retain(|command| !command.is_empty());
    commands
}

fn end_word(commands: &mut [Vec<String>], word: &mut Option<String>) {
    if let (Some(command), Some(word)) = (commands.last_mut(), word.take()) {
        command.push(word);
    }
}

/// The path that a word names in `folder`.
pub(in crate::commands) fn resolve(word: &str, folder: &Path, home: &Path) -> PathBuf {
    let in_home = ["~/", "$HOME/", "${HOME}/"].into_iter().find_map(|start| word.strip_prefix(start));
    match in_home {
        Some(rest) => home.join(rest),
        None if matches!(word, "~" | "$HOME" | "${HOME}") => home.to_owned(),
        None => folder.join(word),
    }
}

/// A word without quotes and without characters that end a command.
pub(in crate::commands) fn trim_quotes(word: &str) -> &str {
    word.trim_matches(|c: char| "'\"`;&|()".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_splits_them() {
        #[track_caller]
        fn check(text: &str, expected: &[&[&str]]) {
            assert_eq!(split_commands(text), expected, "{text}");
        }
        check("", &[]);
        check(" a  b ", &[&["a", "b"]]);
        check("cd /x && ./a -c y;b&", &[&["cd", "/x"], &["./a", "-c", "y"], &["b"]]);
        check("'/srv/a b/it'\\''s' \"c d\"e \"\"", &[&["/srv/a b/it's", "c de", ""]]);
        check("sh -c 'a; b \"c\"' >/dev/null 2>", &[&["sh", "-c", "a; b \"c\"", ">/dev/null", "2>"]]);
        check("a 'unclosed", &[&["a", "unclosed"]]);
    }

    #[test]
    fn a_path_is_found_in_the_home_or_in_the_folder() {
        let at = |word| resolve(word, Path::new("/srv"), Path::new("/home/me"));
        assert_eq!(at("~/a"), Path::new("/home/me/a"));
        assert_eq!(at("${HOME}/a"), Path::new("/home/me/a"));
        assert_eq!(at("$HOME"), Path::new("/home/me"));
        assert_eq!(at("a/b"), Path::new("/srv/a/b"));
        assert_eq!(at("/a"), Path::new("/a"));
    }
}

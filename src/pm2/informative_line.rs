//! Picks the line of a log's tail that best explains why its process is in trouble. It must never pick an error that is
//! older than the latest output, never return terminal escape sequences, and never panic, whatever the log contains.

use std::iter::Peekable;
use std::str::Chars;

#[cfg(test)]
mod tests;

const MAX_CHARS: usize = 300;
/// How many lines are searched, from the end. A stack trace at the very end is read to its top, however long it is.
const MAX_LINES: usize = 60;
/// An error with more ordinary lines than this after it is old.
const MAX_ORDINARY_LINES: usize = 20;
/// Phrases that mark an error anywhere in a line, in lower case. The numbers are pino's levels error and fatal.
const ERROR_PHRASES: &str = "error:|panic:|panicked at|uncaught|unhandled|out of memory|cannot find module|\
     segmentation fault|core dumped|failed to |terminate called|what():|: error |[error]|level=error|\
     \"level\":\"error\"|\"level\": \"error\"|\"level\":50,|\"level\":60,|npm error |npm err! ";

/// Words that mark an error if they stand alone.
const ERROR_WORDS: &str = "ERROR|ERR|FATAL|Fatal|fatal|CRITICAL|SEVERE|Killed";
/// The system errors that end servers. This is a list because words such as EVENT and ENABLED would match a pattern.
const SYSTEM_ERRORS: &str = "EACCES|EADDRINUSE|EADDRNOTAVAIL|EAGAIN|EAI_AGAIN|EBADF|EBUSY|ECONNABORTED|ECONNREFUSED|\
     ECONNRESET|EDQUOT|EEXIST|EHOSTDOWN|EHOSTUNREACH|EINVAL|EIO|EISDIR|ELOOP|EMFILE|ENETDOWN|ENETUNREACH|ENFILE|ENODEV|\
     ENOENT|ENOMEM|ENOSPC|ENOTCONN|ENOTDIR|ENOTEMPTY|ENOTFOUND|EPERM|EPIPE|EPROTO|EROFS|ESOCKETTIMEDOUT|ETIMEDOUT";

/// The beginnings of lines that surround an error without describing it. `- /` is an entry of node's `Require stack:`,
/// the dashes and `<---` introduce its report of a full heap, and the last two are from yarn.
const NOISE_STARTS: &str = "... |-----|<---|Node.js v|Bun v|Emitted 'error' event|(Use `node --trace|Require stack:|\
     - /|Traceback (most recent call last)|During handling of the above exception|\
     The above exception was the direct cause|[Previous line repeated|goroutine |exit status |[signal SIG|note: |\
     stack backtrace:|Stack trace:|thrown in /|npm notice|error Command failed with exit code|info Visit https://yarn";

/// The beginnings of npm's lines, after `npm error`, that only say that another command failed.
const NPM_TRAILERS: &str = "A complete log of this run|Additional logging details|Exit status|Failed at the |\
     Lifecycle script|This is probably not a problem|To see a list of scripts|code |command |errno |location |npm run|\
     path |signal |syscall |workspace ";

/// The line of a log's tail that best explains why its process is in trouble: trimmed, without escape sequences, and at
/// most 300 characters. `None` if no line has text.
pub(super) fn most_informative_line(tail: &str) -> Option<String> {
    let lines: Vec<String> = tail.split('\n').map(visible_text).collect();
    let mut last = None;
    let mut ordinary = 0;
    for at in (0..lines.len()).rev() {
        if is_noise(&lines, at) {
            continue;
        }
        if ordinary > MAX_ORDINARY_LINES || (ordinary > 0 && lines.len() - at > MAX_LINES) {
            break;
        }
        if names_error(strip_prefixes(&lines[at])) || ends_traceback(&lines, at) {
            return Some(shorten(&add_context(&lines, at)));
        }
        last = last.or(Some(at));
        ordinary += 1;
    }
    let last = last.or_else(|| lines.iter().rposition(|line| !strip_prefixes(line).trim().is_empty()))?;
    Some(shorten(lines[last].trim()))
}

/// Removes terminal escape sequences (CSI such as colours, OSC such as titles) and all control characters except line
/// breaks and tabs. A carriage return becomes a line break.
pub(super) fn strip_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut rest),
            '\r' if matches!(rest.peek(), Some('\r' | '\n')) => {}
            '\r' => kept.push('\n'),
            '\n' | '\t' => kept.push(character),
            _ if character.is_control() => {}
            _ => kept.push(character),
        }
    }
    kept
}

/// Skips the rest of an escape sequence. An incomplete sequence ends with its line.
fn skip_sequence(rest: &mut Peekable<Chars>) {
    match rest.next_if(|next| matches!(next, ' '..='~')) {
        Some('[') => {
            while rest.next_if(|next| matches!(next, ' '..='?')).is_some() {}
            rest.next_if(|next| matches!(next, '@'..='~'));
        }
        // A string of any length, which BEL or the next escape ends.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while rest.next_if(|next| !matches!(next, '\u{7}' | '\u{1b}' | '\n' | '\r')).is_some() {}
        }
        // For example the selection of a character set.
        Some(' '..='/') => {
            while rest.next_if(|next| matches!(next, ' '..='/')).is_some() {}
            rest.next_if(|next| matches!(next, '0'..='~'));
        }
        _ => {}
    }
}

/// What a terminal would show of a line: the last state of a progress bar, for example.
fn visible_text(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    strip_escapes(line.rsplit('\r').next().unwrap_or(line)).trim_end().to_owned()
}

/// Adds the neighbouring line that makes the line understandable: the message of a panic, or the error of a cause.
fn add_context(lines: &[String], at: usize) -> String {
    let line = lines[at].trim();
    if is_panic_header(line) && at + 1 < lines.len() && !is_noise(lines, at + 1) {
        return format!("{line} {}", strip_prefixes(&lines[at + 1]).trim());
    }
    if let Some(above) = at.checked_sub(1).map(|above| lines[above].trim()).filter(|above| is_panic_header(above)) {
        return format!("{above} {}", strip_prefixes(line).trim());
    }
    if is_cause(strip_prefixes(line)) {
        let mut above =
            (0..at).rev().filter(|above| !is_noise(lines, *above) && !is_cause(strip_prefixes(&lines[*above])));
        if let Some(outer) = above.next().filter(|outer| names_error(strip_prefixes(&lines[*outer]))) {
            return format!("{} {}", lines[outer].trim().trim_end_matches(" {"), strip_prefixes(line).trim());
        }
    }
    line.to_owned()
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(MAX_CHARS) {
        None => line.to_owned(),
        Some(_) => line.chars().take(MAX_CHARS - 1).chain(['…']).collect(),
    }
}

/// Removes what PM2 or a logger puts before a line, such as `0|api  | ` and a timestamp. The indentation stays.
fn strip_prefixes(line: &str) -> &str {
    let after = strip_name(line).or_else(|| strip_time(line));
    let Some(first) = after else { return line };
    strip_name(first).or_else(|| strip_time(first)).unwrap_or(first)
}

fn strip_name(line: &str) -> Option<&str> {
    let name = line.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('|')?;
    if !line.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (name, rest) = name.split_once('|')?;
    let is_name = name.ends_with(' ') && !name.trim_end().contains(' ');
    is_name.then(|| rest.strip_prefix(' ').unwrap_or(rest))
}

fn strip_time(line: &str) -> Option<&str> {
    let text = line.strip_prefix('[').unwrap_or(line);
    let mut end = 0;
    for (at, character) in text.char_indices() {
        let goes_on = match character {
            '0'..='9' | '-' | ':' | '.' | ',' | '+' | '/' | 'T' | 'Z' => true,
            // Between date, time and offset.
            ' ' => at > 0 && text[at + 1..].starts_with(|c: char| c.is_ascii_digit() || c == '+'),
            _ => false,
        };
        if !goes_on {
            break;
        }
        end = at + 1;
    }
    let (time, rest) = text.split_at(end);
    let digits = time.bytes().filter(u8::is_ascii_digit).count();
    if digits < 6 || !time.contains(':') {
        return None;
    }
    let rest = rest.strip_prefix(']').unwrap_or(rest);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(' ') }
}

fn names_error(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.trim_start().starts_with("error ")
        || ERROR_PHRASES.split('|').any(|phrase| lower.contains(phrase))
        || text
            .split(|c: char| !c.is_alphanumeric() && !"_-$".contains(c))
            .any(|word| is_error_word(word.trim_matches('-')))
}

fn is_error_word(word: &str) -> bool {
    let is_class = word.ends_with("Error") || word.ends_with("Exception");
    word.starts_with(|c: char| c.is_uppercase()) && is_class
        || ERROR_WORDS.split('|').chain(SYSTEM_ERRORS.split('|')).any(|known| known == word)
}

/// Whether a line is the last one of a Python traceback. The class name in it may be anything.
fn ends_traceback(lines: &[String], at: usize) -> bool {
    let above = |count: usize| at.checked_sub(count).map_or("", |index| strip_prefixes(&lines[index]));
    let has_source = is_indented(above(1)) && (is_python_frame(above(2)) || is_python_frame(above(3)));
    !is_indented(strip_prefixes(&lines[at])) && (is_python_frame(above(1)) || has_source)
}

/// Whether a line only surrounds an error: a stack frame, a source excerpt, an object property, a rule, npm's trailer.
fn is_noise(lines: &[String], at: usize) -> bool {
    let text = strip_prefixes(&lines[at]);
    let above = at.checked_sub(1).map_or("", |above| strip_prefixes(&lines[above]));
    let below = lines.get(at + 1).map_or("", |below| strip_prefixes(below));
    let line = text.trim();
    !line.contains(|c: char| c.is_alphanumeric())
        || starts_with_any(line, NOISE_STARTS)
        || line == "Caused by:"
        || is_frame(line, is_indented(text))
        || is_source_location(line)
        || is_npm_trailer(line)
        || is_property(text, below.trim())
        || is_python_frame(text)
        || is_python_frame(above) && is_indented(text)
        || is_caret_line(below)
        || is_go_location(below) && (line.ends_with(')') || line.starts_with("created by "))
}

/// Whether a line is a stack frame of node, Java, .NET, Go, Rust, PHP or Ruby.
fn is_frame(line: &str, indented: bool) -> bool {
    let end = line.trim_end_matches([' ', '{', ',', '[']);
    if let Some(place) = end.strip_prefix("at ") {
        return place.ends_with([')', ']', '>']) || ends_with_number(place) || place.contains(":line ");
    }
    if let Some(place) = line.strip_prefix("from ") {
        return place.contains(":in ");
    }
    let after_hash = line.strip_prefix('#');
    let number = after_hash.unwrap_or(line);
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == number.len() {
        return is_go_location(line);
    }
    after_hash.is_some() && rest.starts_with(' ')
        || rest.starts_with(": ") && (indented || rest.starts_with(": 0x") || rest.contains("::"))
}

/// Whether a line is a location such as `/srv/app/server.js:12`, which node prints above a source excerpt.
fn is_source_location(line: &str) -> bool {
    let starts = ["/", "file://", "node:", "[eval]", "evalmachine."];
    starts.iter().any(|start| line.starts_with(start)) && ends_with_number(line)
}

fn ends_with_number(line: &str) -> bool {
    let before = line.trim_end_matches(|c: char| c.is_ascii_digit());
    before.len() < line.len() && before.ends_with(':')
}

/// Whether a line is a location such as `/srv/x/y.go:12 +0x1b`.
fn is_go_location(text: &str) -> bool {
    let line = text.trim();
    line.starts_with('/')
        && line.split_once(".go:").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_python_frame(text: &str) -> bool {
    text.trim_start().starts_with("File \"") && text.contains(", line ")
}

fn is_caret_line(text: &str) -> bool {
    let marks = text.trim();
    marks.contains('^') && marks.chars().all(|c| matches!(c, '^' | '~' | '-' | ' '))
}

/// Whether a line is a property of a printed object, such as `  errno: -111,`, or a value on a line of its own, such as
/// `    '/srv/app/server.js',`. The last property has no comma, but a brace on the next line.
fn is_property(text: &str, below: &str) -> bool {
    let line = text.trim();
    if !is_indented(text) {
        return false;
    }
    if ["'", "\"", "<Buffer", "<ref", "[Function"].iter().any(|start| line.starts_with(start))
        && line.ends_with(['\'', '"', '>', ']', ',', '+'])
    {
        return true;
    }
    let Some((key, value)) = line.split_once(':') else { return false };
    let name = key.trim_matches(['\'', '"', '[', ']']);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-$()".contains(c));
    let is_class = name.starts_with(|c: char| c.is_uppercase()) && is_error_word(name);
    let is_named_cause = key == "[cause]" && names_error(value);
    let goes_on = value.ends_with([',', '{', '[', '(', '+']) || below.starts_with(['}', ']']);
    is_name && !is_class && !is_named_cause && goes_on
}

fn is_npm_trailer(line: &str) -> bool {
    let after = line.strip_prefix("npm error").or_else(|| line.strip_prefix("npm ERR!")).map(str::trim_start);
    line.contains("ELIFECYCLE")
        || after.is_some_and(|rest| rest.is_empty() || rest.contains("/_logs/") || starts_with_any(rest, NPM_TRAILERS))
}

fn starts_with_any(line: &str, starts: &str) -> bool {
    starts.split('|').any(|start| line.starts_with(start))
}

fn is_panic_header(line: &str) -> bool {
    let text = strip_prefixes(line);
    text.starts_with("thread '") && text.contains(" panicked at ") && text.ends_with(':')
}

fn is_cause(text: &str) -> bool {
    let line = text.trim_start();
    line.starts_with("[cause]: ") || line.starts_with("Caused by: ")
}

fn is_indented(text: &str) -> bool {
    text.starts_with([' ', '\t'])
}

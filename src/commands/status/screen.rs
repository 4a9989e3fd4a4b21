//! The status on a terminal: drops columns of the table that do not fit, and colours the states. It must never change a
//! text that does not go to a terminal.

use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;

use crate::commands::read_env;

const COLUMNS: usize = 6;
const STATE: usize = 1;
/// The columns that a narrow terminal does without, in this order: 30 D, SINCE, 24 H.
const OPTIONAL: [usize; 3] = [5, 2, 4];

pub(super) fn fit_terminal(text: String) -> String {
    if !io::stdout().is_terminal() {
        return text;
    }
    // Without a known width nothing is dropped.
    let width = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    let width = if width == 0 { usize::MAX } else { width.into() };
    render(&text, width, read_env("NO_COLOR").is_none_or(|value| value.is_empty()))
}

fn render(text: &str, width: usize, is_coloured: bool) -> String {
    let starts = column_starts(text.lines().next().unwrap_or_default());
    let rows: Vec<_> = text.lines().filter_map(|line| split_row(line, &starts)).collect();
    let mut columns: Vec<usize> = (0..COLUMNS).collect();
    for dropped in OPTIONAL {
        let join = |row: &Vec<String>| columns.iter().map(|&column| row[column].as_str()).collect::<String>();
        if rows.iter().all(|row| join(row).trim_end().chars().count() <= width) {
            break;
        }
        columns.retain(|&column| column != dropped);
    }
    let render_line = |line: &str| {
        let Some(mut row) = split_row(line, &starts) else { return line.to_owned() };
        if is_coloured {
            row[STATE] = paint(&row[STATE]);
        }
        let line: String = columns.iter().map(|&column| row[column].as_str()).collect();
        line.trim_end().to_owned()
    };
    text.lines().map(render_line).collect::<Vec<_>>().join("\n")
}

/// Where the columns begin, in characters: two spaces separate them, while a heading has single ones.
fn column_starts(header: &str) -> Vec<usize> {
    let header: Vec<char> = header.chars().collect();
    let is_start = |&at: &usize| header[at] != ' ' && (at == 0 || (at > 1 && header[at - 2..at] == [' ', ' ']));
    (0..header.len()).filter(is_start).collect()
}

/// The cells of a row of the table, with their padding; none for any other line.
fn split_row(line: &str, starts: &[usize]) -> Option<Vec<String>> {
    let line: Vec<char> = line.chars().collect();
    let is_separated = |start: &usize| *start == 0 || line.get(start - 2..*start) == Some(&[' ', ' ']);
    let is_row = starts.len() == COLUMNS && line.first() != Some(&' ') && starts.iter().all(is_separated);
    if !is_row {
        return None;
    }
    let ends = starts[1..].iter().copied().chain([line.len()]);
    Some(starts.iter().zip(ends).map(|(&start, end)| line[start..end].iter().collect()).collect())
}

fn paint(cell: &str) -> String {
    let state = cell.trim_end();
    let colour = match state {
        "healthy" => 32,
        "failing" | "recovering" => 33,
        "down" => 31,
        _ => return cell.to_owned(),
    };
    format!("\x1b[{colour}m{state}\x1b[0m{}", &cell[state.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
TARGET       STATE    SINCE             LAST PROBE           24 H     30 D
sav-backend  healthy  16 Nov (6 days)   200 in 3 ms, 12 s    99.91 %  99.98 %
mailer       down     02:58 (20 min)    refused, 4 s ago     98.6 %   99.4 %
  5 restarts did not help; next restart at 03:22
watchdog 0.1.0 runs (pid 3120, alive 2 s ago) · could repair: yes, checked 14 min ago";

    #[track_caller]
    fn check(width: usize, expected: &[&str]) {
        let rest: Vec<&str> = TEXT.lines().skip(3).collect();
        assert_eq!(render(TEXT, width, false), [expected, &rest].concat().join("\n"), "{width}");
    }

    #[test]
    fn columns_are_dropped_until_the_table_fits() {
        check(usize::MAX, &TEXT.lines().take(3).collect::<Vec<_>>());
        check(76, &TEXT.lines().take(3).collect::<Vec<_>>());
        check(
            60,
            &[
                "TARGET       STATE    LAST PROBE           24 H",
                "sav-backend  healthy  200 in 3 ms, 12 s    99.91 %",
                "mailer       down     refused, 4 s ago     98.6 %",
            ],
        );
        check(
            10,
            &[
                "TARGET       STATE    LAST PROBE",
                "sav-backend  healthy  200 in 3 ms, 12 s",
                "mailer       down     refused, 4 s ago",
            ],
        );
    }

    #[test]
    fn only_states_in_the_table_are_coloured() {
        let text = render(TEXT, usize::MAX, true);
        assert!(text.contains("sav-backend  \x1b[32mhealthy\x1b[0m  16 Nov"), "{text}");
        assert!(text.contains("mailer       \x1b[31mdown\x1b[0m     02:58"), "{text}");
        assert_eq!(text.matches('\x1b').count(), 4);
        assert_eq!(render("nothing is down", usize::MAX, true), "nothing is down");
        assert_eq!(render("", usize::MAX, true), "");
    }
}

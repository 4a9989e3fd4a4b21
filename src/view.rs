//! What people and machines read: data in, text out. Nothing here does I/O or reads a clock.

pub mod incident;
pub mod log_line;
pub mod message;
pub mod metrics;
pub mod page;
pub mod pattern;
pub mod presence;
pub mod report;
pub mod status;

use std::path::Path;

/// Rows of cells as lines, each column as wide as its widest cell.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, widest)| format!("{cell}{}", " ".repeat(widest.saturating_sub(width(cell)))));
        cells.collect::<Vec<String>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// A part of a whole in percent. Never rounded up: it is cut to four decimals already.
fn percent(part: Option<f64>) -> String {
    let Some(part) = part else { return "–".into() };
    let digits = format!("{:.2}", part * 100.0);
    let short = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{short} %")
}

/// A path as people write it, `~` for their home.
fn at_home(home: Option<&Path>, path: &Path) -> String {
    let below = home.and_then(|home| path.strip_prefix(home).ok());
    below.map_or_else(|| path.display().to_string(), |below| format!("~/{}", below.display()))
}

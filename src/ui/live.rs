//! Live lines on a terminal: drawn over the last ones.

use std::io::{Write, stdout};

/// A block of lines at the bottom of the terminal.
#[derive(Debug, Default)]
pub(super) struct LiveBlock {
    drawn: usize,
}

impl LiveBlock {
    /// Draws `lines` over the last ones; those that do not fit the terminal are summed up.
    pub(super) fn draw(&mut self, lines: &[String]) {
        let (columns, rows) = size();
        let room = rows.saturating_sub(2).max(1);
        let mut text = self.erased();
        let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
        for line in &lines[..shown] {
            text.extend(line.chars().take(columns));
            text.push('\n');
        }
        self.drawn = shown;
        if shown < lines.len() {
            text.push_str(&format!("… and {} more: make the terminal higher, or use --stats\n", lines.len() - shown));
            self.drawn += 1;
        }
        write(&text);
    }

    /// Prints a line that stays, above the block.
    pub(super) fn print_above(&mut self, line: &str) {
        let text = self.erased();
        self.drawn = 0;
        write(&format!("{text}{line}\n"));
    }

    fn erased(&self) -> String {
        // To the first column as well: the terminal may have echoed a key.
        if self.drawn == 0 { "\r".into() } else { format!("\r\x1b[{}A\x1b[J", self.drawn) }
    }
}

fn size() -> (usize, usize) {
    terminal_size::terminal_size().map_or((80, 24), |(width, height)| (width.0.into(), height.0.into()))
}

/// A terminal that is gone takes no more lines; the flow goes on.
pub(super) fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

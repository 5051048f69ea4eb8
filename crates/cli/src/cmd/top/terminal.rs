//! The terminal as a screen of our own: no echo, no line discipline, the user's screen comes back afterwards.

use std::io::{IsTerminal as _, Write as _, stdin, stdout};

use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

use crate::error::{Context as _, Failure};

/// A second screen without a cursor, and the way back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// What is said in the other languages of terminals is not spoken here.
const WITHOUT_SCREEN: [&str; 3] = ["", "dumb", "unknown"];

/// The screen, until this is dropped.
pub(super) struct Terminal(Termios);

impl Terminal {
    pub(super) fn enter() -> Result<Terminal, Failure> {
        if !stdin().is_terminal() {
            return Err(Failure::new("stdin is not a terminal"));
        }
        let term = std::env::var("TERM").unwrap_or_default();
        if WITHOUT_SCREEN.contains(&term.as_str()) {
            let text = format!("TERM={term}: terminal does not support required capabilities");
            return Err(Failure::new(text));
        }
        let errno = |e: nix::Error| std::io::Error::from(e);
        let before = tcgetattr(stdin()).map_err(errno).context("terminal")?;
        let mut ours = before.clone();
        ours.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        ours.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        ours.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(stdin(), SetArg::TCSANOW, &ours)
            .map_err(errno)
            .context("terminal")?;
        let terminal = Terminal(before);
        terminal.show(ENTER)?;
        Ok(terminal)
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match terminus::pty::own_size() {
            Some(size) if size.rows > 1 && size.cols > 1 => (size.rows.into(), size.cols.into()),
            // Who does not know has what terminals always had.
            _ => (24, 80),
        }
    }

    pub(super) fn clear(&self) -> Result<(), Failure> {
        self.show("\x1b[2J")
    }

    pub(super) fn show(&self, text: &str) -> Result<(), Failure> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing helps a terminal that is gone.
        let _ = self.show(LEAVE);
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

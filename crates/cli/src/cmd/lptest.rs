//! `flux lptest`: lines of all printable characters, each line one further on: what terminals were tested with.

use clap::Parser;

use crate::args::Args;
use crate::error::Outcome;
use crate::output;

/// Print lines of regular text, to test output with.
#[derive(Parser)]
struct Options {
    /// Characters of a line
    #[arg(default_value_t = 79)]
    length: usize,
    /// Lines
    #[arg(default_value_t = 200)]
    count: usize,
}

const PRINTABLE: std::ops::RangeInclusive<u8> = b'!'..=b'~';

fn line(number: usize, length: usize) -> String {
    let ripple = PRINTABLE.cycle().skip(number % PRINTABLE.len());
    ripple.take(length).map(char::from).collect()
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { length, count } = args.parse()?;
    for number in 0..count {
        output::write(&(line(number, length) + "\n"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines_ripple() {
        assert_eq!(line(0, 4), "!\"#$");
        assert_eq!(line(1, 3), "\"#$");
        assert_eq!(line(93, 3), "~!\"");
        assert_eq!(line(94, 3), line(0, 3));
    }
}

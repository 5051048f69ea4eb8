//! Signals in words, as the C library of Linux has them (strsignal(3)).

const NAMES: [&str; 31] = [
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

/// Their short names, in the same order.
const SHORT: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by its name, with or without `SIG`, or its number.
///
/// ```
/// assert_eq!(formats::signals::parse("SIGTERM"), Some(15));
/// assert_eq!(formats::signals::parse("usr1"), Some(10));
/// assert_eq!(formats::signals::parse("SIGNAL"), None);
/// ```
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let index = SHORT.iter().position(|short| *short == name)?;
    Some(index as i32 + 1)
}

/// The name of a signal, as in `SIGTERM`, or its number if it has none.
pub fn name(signal: i32) -> String {
    let known = usize::try_from(signal).ok().and_then(|s| s.checked_sub(1));
    match known.and_then(|index| SHORT.get(index)) {
        Some(short) => format!("SIG{short}"),
        None => signal.to_string(),
    }
}

/// The words for a signal, or its number if it has none.
///
/// ```
/// assert_eq!(formats::signals::describe(15), "Terminated");
/// assert_eq!(formats::signals::describe(35), "Real-time signal 1");
/// ```
pub fn describe(signal: i32) -> String {
    let known = usize::try_from(signal).ok().and_then(|s| s.checked_sub(1));
    match known.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None if (34..=64).contains(&signal) => format!("Real-time signal {}", signal - 34),
        None => format!("Unknown signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, signal) in [("9", Some(9)), ("0", None), ("65", None), ("", None)] {
            assert_eq!(parse(text), signal, "{text}");
        }
        assert_eq!((parse("SYS"), parse("SIGHUP")), (Some(31), Some(1)));
        assert_eq!((name(15).as_str(), name(40).as_str()), ("SIGTERM", "40"));
    }

    #[test]
    fn as_the_c_library_says() {
        for (signal, name) in [
            (1, "Hangup"),
            (11, "Segmentation fault"),
            (31, "Bad system call"),
            (0, "Unknown signal 0"),
            (-3, "Unknown signal -3"),
            (32, "Unknown signal 32"),
            (34, "Real-time signal 0"),
            (65, "Unknown signal 65"),
        ] {
            assert_eq!(describe(signal), name);
        }
    }
}

//! Job ids: 64-bit FLUIDs of RFC 19 and every text form of them.
//!
//! A FLUID is `[40 bits of milliseconds | 14 bits of generator id | 10 bits of sequence]`. The
//! text form alone decides how it is decoded: a `.` means dotted hex, a `-` means words, `ƒ` or
//! `f` base 58, an emoji base 576, `0x` hex, and anything else is decimal.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::LazyLock};

const F58_DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const F58_PREFIX: &str = "ƒ";
const SEQ_BITS: u32 = 10;
const GENERATOR_BITS: u32 = 14;
const TIMESTAMP_BITS: u32 = 40;
/// Words code 32 bits as three digits of this base (the cube root of 2^32, rounded up).
const WORD_BASE: u32 = 1626;

static WORDS: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("data/mnemonic-words.txt").lines().collect());
static EMOJI: LazyLock<Vec<char>> = LazyLock::new(|| {
    include_str!("data/emoji.txt")
        .chars()
        .filter(|c| *c != '\n')
        .collect()
});

/// The id of a job, unique within its instance. JSON carries it as an integer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// Why a string is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a job id: {why}")]
pub struct JobIdError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The `kind` given to [`JobId::encode`] is not one of [`ENCODINGS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown job id encoding '{0}'; use one of dec, hex, kvs, dothex, words, f58, f58plain, emoji"
)]
pub struct UnknownEncoding(pub String);

/// The names [`JobId::encode`] knows.
pub const ENCODINGS: [&str; 8] = [
    "dec", "hex", "kvs", "dothex", "words", "f58", "f58plain", "emoji",
];

impl JobId {
    /// Base 58 with the `ƒ` prefix, the form shown to users.
    pub fn f58(self) -> String {
        self.f58_with_prefix(F58_PREFIX)
    }

    /// Base 58 with the ASCII prefix `f`, for locales without UTF-8 and for service names.
    pub fn f58_ascii(self) -> String {
        self.f58_with_prefix("f")
    }

    /// Base 58 with the prefix that the locale can show, from the variables of an environment: `ƒ` where it is UTF-8
    /// or nothing, and `FLUX_F58_FORCE_ASCII` is not set.
    pub fn f58_in(self, variable: impl Fn(&str) -> Option<String>) -> String {
        let names = ["LC_ALL", "LC_CTYPE", "LANG"];
        let locale = names
            .iter()
            .find_map(|n| variable(n).filter(|v| !v.is_empty()));
        let is_utf8 = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        match is_utf8 && variable("FLUX_F58_FORCE_ASCII").is_none() {
            true => self.f58(),
            false => self.f58_ascii(),
        }
    }

    fn f58_with_prefix(self, prefix: &str) -> String {
        let mut digits = [0u8; 11];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = F58_DIGITS[(rest % 58) as usize];
            rest /= 58;
            if rest == 0 {
                break;
            }
        }
        let digits = digits[at..].iter().map(|d| char::from(*d));
        prefix.chars().chain(digits).collect()
    }

    /// Decimal digits.
    pub fn dec(self) -> String {
        self.0.to_string()
    }

    /// Hexadecimal digits after `0x`.
    pub fn hex(self) -> String {
        format!("{:#x}", self.0)
    }

    /// Four groups of four hexadecimal digits.
    pub fn dothex(self) -> String {
        let part = |shift: u32| (self.0 >> shift) & 0xffff;
        format!(
            "{:04x}.{:04x}.{:04x}.{:04x}",
            part(48),
            part(32),
            part(16),
            part(0)
        )
    }

    /// The job's directory in the primary KVS namespace (RFC 16).
    pub fn kvs_path(self) -> String {
        format!("job.{}", self.dothex())
    }

    /// The name of the job's guest KVS namespace while it runs.
    pub fn namespace(self) -> String {
        format!("job-{}", self.0)
    }

    /// Six words.
    pub fn words(self) -> String {
        let group = |half: u32| {
            let digit = |n: u32| WORDS[(n % WORD_BASE) as usize];
            [
                digit(half),
                digit(half / WORD_BASE),
                digit(half / WORD_BASE / WORD_BASE),
            ]
            .join("-")
        };
        format!("{}--{}", group(self.0 as u32), group((self.0 >> 32) as u32))
    }

    /// Up to seven emoji.
    pub fn emoji(self) -> String {
        let base = EMOJI.len() as u64;
        let mut digits = Vec::with_capacity(7);
        let mut rest = self.0;
        loop {
            digits.push(EMOJI[(rest % base) as usize]);
            rest /= base;
            if rest == 0 {
                break;
            }
        }
        digits.iter().rev().collect()
    }

    /// Encodes by the name of the form, as `flux job id --to=KIND` does.
    pub fn encode(self, kind: &str) -> Result<String, UnknownEncoding> {
        Ok(match kind {
            "dec" => self.dec(),
            "hex" => self.hex(),
            "kvs" => self.kvs_path(),
            "dothex" => self.dothex(),
            "words" => self.words(),
            "f58" => self.f58(),
            "f58plain" => self.f58_ascii(),
            "emoji" => self.emoji(),
            other => return Err(UnknownEncoding(other.to_owned())),
        })
    }

    /// Milliseconds between the generator's epoch and the creation of this id.
    pub fn timestamp_ms(self) -> u64 {
        self.0 >> (SEQ_BITS + GENERATOR_BITS)
    }
}

fn decode_f58(digits: &str) -> Result<u64, &'static str> {
    if digits.is_empty() {
        return Err("no base 58 digits follow the prefix");
    }
    digits.bytes().try_fold(0u64, |id, c| {
        let digit = F58_DIGITS
            .iter()
            .position(|d| *d == c)
            .ok_or("bad base 58 digit")?;
        id.checked_mul(58)
            .and_then(|id| id.checked_add(digit as u64))
            .ok_or("out of range")
    })
}

fn decode_dothex(text: &str) -> Result<u64, &'static str> {
    let text = text.strip_prefix("job.").unwrap_or(text);
    let parts: Vec<&str> = text.split('.').collect();
    let [_, _, _, _] = parts[..] else {
        return Err("dotted hex has four parts");
    };
    parts.iter().try_fold(0u64, |id, part| {
        let digits = (1..=4).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_hexdigit());
        let value = digits.then(|| u64::from_str_radix(part, 16).ok()).flatten();
        Ok(id << 16 | value.ok_or("each part of dotted hex is one to four hex digits")?)
    })
}

fn decode_words(text: &str) -> Result<u64, &'static str> {
    let words: Vec<&str> = text.split('-').filter(|w| !w.is_empty()).collect();
    if words.len() != 6 {
        return Err("the words form has six words");
    }
    let mut halves = [0u64; 2];
    for (half, group) in halves.iter_mut().zip(words.chunks(3)) {
        let mut scale = 1u64;
        for word in group {
            let digit = WORDS[..WORD_BASE as usize].iter().position(|w| w == word);
            *half += digit.ok_or("unknown word")? as u64 * scale;
            scale *= u64::from(WORD_BASE);
        }
        if *half > u64::from(u32::MAX) {
            return Err("out of range");
        }
    }
    Ok(halves[1] << 32 | halves[0])
}

fn decode_emoji(text: &str) -> Result<u64, &'static str> {
    text.chars().try_fold(0u64, |id, c| {
        let digit = EMOJI.iter().position(|e| *e == c).ok_or("unknown emoji")?;
        id.checked_mul(EMOJI.len() as u64)
            .and_then(|id| id.checked_add(digit as u64))
            .ok_or("out of range")
    })
}

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<JobId, JobIdError> {
        let trimmed = text.trim();
        let decoded = if trimmed.contains('.') {
            decode_dothex(trimmed)
        } else if trimmed.contains('-') {
            decode_words(trimmed)
        } else if let Some(digits) = trimmed
            .strip_prefix(F58_PREFIX)
            .or_else(|| trimmed.strip_prefix('f'))
        {
            decode_f58(digits)
        } else if trimmed.as_bytes().starts_with(&[0xf0, 0x9f]) {
            decode_emoji(trimmed)
        } else if let Some(digits) = trimmed.strip_prefix("0x") {
            let plain = digits.bytes().all(|c| c.is_ascii_hexdigit());
            let value = plain
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten();
            value.ok_or("bad hexadecimal number")
        } else {
            let plain = trimmed.bytes().all(|c| c.is_ascii_digit());
            let value = plain.then(|| trimmed.parse().ok()).flatten();
            value.ok_or("not a number or one of the other forms of a job id")
        };
        decoded.map(JobId).map_err(|why| JobIdError {
            text: text.to_owned(),
            why,
        })
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.f58())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.f58())
    }
}

impl From<u64> for JobId {
    fn from(id: u64) -> JobId {
        JobId(id)
    }
}

/// A FLUID generator. Ids of one generator ascend strictly, also when the clock steps back.
#[derive(Debug, Clone)]
pub struct Fluid {
    generator: u16,
    timestamp: u64,
    sequence: u64,
}

/// Why a FLUID could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum FluidError {
    #[error("generator id {0} does not fit in 14 bits")]
    Generator(u32),
    #[error("the 35 years of the 40-bit millisecond timestamp are over")]
    Exhausted,
}

impl Fluid {
    /// `start_ms` is the first timestamp to be used: zero for a new instance, a value past the
    /// greatest id known for one that restarts.
    pub fn new(generator: u32, start_ms: u64) -> Result<Fluid, FluidError> {
        if generator >= 1 << GENERATOR_BITS {
            return Err(FluidError::Generator(generator));
        }
        Ok(Fluid {
            generator: generator as u16,
            timestamp: start_ms,
            sequence: 0,
        })
    }

    /// The next id at `now_ms` milliseconds since the epoch of the instance. When the 1024 ids
    /// of a millisecond are used up the next millisecond is borrowed instead of waited for.
    pub fn next(&mut self, now_ms: u64) -> Result<JobId, FluidError> {
        if now_ms > self.timestamp {
            self.timestamp = now_ms;
            self.sequence = 0;
        } else if self.sequence >= 1 << SEQ_BITS {
            self.timestamp += 1;
            self.sequence = 0;
        }
        if self.timestamp >= 1 << TIMESTAMP_BITS {
            return Err(FluidError::Exhausted);
        }
        let id = self.timestamp << (SEQ_BITS + GENERATOR_BITS)
            | u64::from(self.generator) << SEQ_BITS
            | self.sequence;
        self.sequence += 1;
        Ok(JobId(id))
    }

    /// The timestamp of the last id, to be saved so that a restarted generator goes on after it.
    pub fn timestamp_ms(&self) -> u64 {
        self.timestamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales() {
        let with = |set: &[(&str, &str)]| {
            let text = JobId(1).f58_in(|name| {
                let found = set.iter().find(|(n, _)| *n == name)?;
                Some(found.1.to_owned())
            });
            text == JobId(1).f58()
        };
        assert!(with(&[]));
        assert!(with(&[("LANG", "en_US.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LANG", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[
            ("FLUX_F58_FORCE_ASCII", "1"),
            ("LANG", "en_US.UTF-8")
        ]));
    }
    use proptest::prelude::*;

    #[test]
    fn forms_of_the_rfc() {
        let id = JobId(6731191091817518);
        for (kind, text) in [
            ("dec", "6731191091817518"),
            ("f58", "ƒuZZybuNNy"),
            ("f58plain", "fuZZybuNNy"),
            ("hex", "0x17e9fb8df16c2e"),
            ("dothex", "0017.e9fb.8df1.6c2e"),
            ("kvs", "job.0017.e9fb.8df1.6c2e"),
            ("words", "reform-remote-galileo--heart-package-academy"),
            ("emoji", "👩💅📓😸👑🚓"),
        ] {
            assert_eq!(id.encode(kind).as_deref(), Ok(text));
            assert_eq!(text.parse(), Ok(id), "{text}");
            assert_eq!(format!("  {text}\n").parse(), Ok(id));
        }
        assert_eq!("🚹💂🙌😳💱🏃".parse(), Ok(JobId(32031603597246464)));
        assert_eq!(JobId(0).f58(), "ƒ1");
        assert_eq!(
            "ƒZemgA8Bzf".parse::<JobId>().map(JobId::f58_ascii),
            Ok("fZemgA8Bzf".into())
        );
        assert_eq!(
            JobId(0xedaf97d000000).words(),
            "random-idea-yoyo--sugar-printer-academy"
        );
        assert_eq!(JobId(0xedaf97d000000).dothex(), "000e.daf9.7d00.0000");
    }

    #[test]
    fn refuses_what_is_not_an_id() {
        for text in [
            "",
            "x",
            "-1",
            "1x",
            "0x",
            "0xg",
            "f",
            "ƒ",
            "f0",
            "fl",
            "1.2.3",
            "1.2.3.4.5",
            "1..2.3",
            "foo-bar",
            "ƒzzzzzzzzzzzzzzz",
            "😃x",
            "99999999999999999999",
            "+1",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
        assert_eq!(
            "fO".parse::<JobId>().unwrap_err().to_string(),
            "'fO' is not a job id: bad base 58 digit"
        );
    }

    proptest! {
        #[test]
        fn every_form_round_trips(id: u64) {
            for kind in ENCODINGS {
                let text = JobId(id).encode(kind).unwrap();
                prop_assert_eq!(text.parse(), Ok(JobId(id)), "{}", text);
            }
        }

        #[test]
        fn generated_ids_ascend(times in prop::collection::vec(0u64..3, 1..5000)) {
            let mut fluid = Fluid::new(3, 0).unwrap();
            let mut last = None;
            for t in times {
                let id = fluid.next(t).unwrap();
                prop_assert!(Some(id) > last);
                prop_assert_eq!((id.0 >> SEQ_BITS) & 0x3fff, 3);
                last = Some(id);
            }
        }
    }
}

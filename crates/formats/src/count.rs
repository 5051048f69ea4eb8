//! How many of a resource are wanted: an integer, a set (RFC 22) or a range (RFC 14, RFC 45).
//!
//! A range is `min`, an optional `max`, and a step made by an operator and its operand. In JSON it
//! is a mapping or, compactly, a string such as `2-16:2:*`; which of both is kept, so that a
//! document is written as it was read.

use crate::{Idset, idset::IdsetError};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{fmt, str::FromStr};

/// How many of a resource are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// Exactly so many.
    Fixed(u32),
    /// Any value of a range.
    Range(CountRange),
    /// One of several counts; neither empty nor with 0 in it.
    Set(Idset),
}

/// What leads from one acceptable value to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`: steps of the operand.
    Add,
    /// `*`: each value is the operand times the one before.
    Multiply,
    /// `^`: each value is the one before to the power of the operand.
    Power,
}

/// The values `min`, `min operator operand`, … up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRange {
    min: u32,
    max: Option<u32>,
    operator: Operator,
    operand: u32,
    compact: bool,
}

/// Why numbers do not make a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum CountRangeError {
    #[error("min, max and operand must be positive")]
    Zero,
    #[error("'max' must not be less than 'min'")]
    Order,
    #[error("'operand' must be at least 2 for '*' and '^'")]
    Operand,
    #[error("'min' must be at least 2 for '^'")]
    Power,
}

/// Why a text is not a count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum CountError {
    #[error("'{0}' is neither a number, a set such as 2,4,8 nor a range such as 2-8:2:*")]
    Syntax(String),
    #[error("'{0}': counts must be positive")]
    Zero(String),
    #[error("{0}")]
    Idset(#[from] IdsetError),
    #[error("'{text}': {source}")]
    Range {
        text: String,
        source: CountRangeError,
    },
}

impl Operator {
    /// The character that stands for it.
    pub fn symbol(self) -> char {
        match self {
            Operator::Add => '+',
            Operator::Multiply => '*',
            Operator::Power => '^',
        }
    }

    /// The operator of a one-character text.
    pub fn from_symbol(symbol: &str) -> Option<Operator> {
        match symbol {
            "+" => Some(Operator::Add),
            "*" => Some(Operator::Multiply),
            "^" => Some(Operator::Power),
            _ => None,
        }
    }
}

impl CountRange {
    /// A checked range. Without `max` it has no end.
    pub fn new(
        min: u32,
        max: Option<u32>,
        operator: Operator,
        operand: u32,
    ) -> Result<CountRange, CountRangeError> {
        if min == 0 || max == Some(0) || operand == 0 {
            return Err(CountRangeError::Zero);
        }
        if max.is_some_and(|max| max < min) {
            return Err(CountRangeError::Order);
        }
        if operator != Operator::Add && operand < 2 {
            return Err(CountRangeError::Operand);
        }
        if operator == Operator::Power && min < 2 {
            return Err(CountRangeError::Power);
        }
        Ok(CountRange {
            min,
            max,
            operator,
            operand,
            compact: false,
        })
    }

    /// The least value.
    pub fn min(&self) -> u32 {
        self.min
    }

    /// The bound as it was given; the greatest value may be less.
    pub fn max(&self) -> Option<u32> {
        self.max
    }

    /// How the values go on.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// By how much they go on.
    pub fn operand(&self) -> u32 {
        self.operand
    }

    fn after(&self, value: u32) -> Option<u32> {
        let next = match self.operator {
            Operator::Add => value.checked_add(self.operand),
            Operator::Multiply => value.checked_mul(self.operand),
            Operator::Power => value.checked_pow(self.operand),
        };
        next.filter(|n| self.max.is_none_or(|max| *n <= max))
    }

    /// The acceptable values, ascending; without `max` they go on to the end of the type.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let range = *self;
        std::iter::successors(Some(self.min), move |value| range.after(*value))
    }

    /// The greatest acceptable value that is at most `limit`. Logarithmic but for `+`, which is
    /// constant.
    pub fn at_most(&self, limit: u32) -> Option<u32> {
        let limit = self.max.map_or(limit, |max| max.min(limit));
        match self.operator {
            Operator::Add => {
                let steps = limit.checked_sub(self.min)? / self.operand;
                Some(self.min + steps * self.operand)
            }
            _ => self.iter().take_while(|value| *value <= limit).last(),
        }
    }
}

impl Count {
    /// The least count that satisfies the request; 0 only for a fixed count of 0.
    pub fn min(&self) -> u32 {
        match self {
            Count::Fixed(n) => *n,
            Count::Range(range) => range.min,
            Count::Set(set) => set.first().unwrap_or(0),
        }
    }

    /// The greatest acceptable count that is at most `limit`.
    ///
    /// ```
    /// use formats::Count;
    /// let count: Count = "2-100:2:*".parse()?;
    /// assert_eq!(count.at_most(50), Some(32));
    /// assert_eq!(count.at_most(1), None);
    /// # Ok::<(), formats::count::CountError>(())
    /// ```
    pub fn at_most(&self, limit: u32) -> Option<u32> {
        match self {
            Count::Fixed(n) => Some(*n).filter(|n| *n <= limit),
            Count::Range(range) => range.at_most(limit),
            Count::Set(set) => set.intersection(&Idset::from_range(0, limit)).last(),
        }
    }

    /// Whether exactly `n` may be given.
    pub fn allows(&self, n: u32) -> bool {
        self.at_most(n) == Some(n)
    }

    /// The acceptable values, ascending.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Count::Fixed(n) => Box::new(std::iter::once(*n)),
            Count::Range(range) => Box::new(range.iter()),
            Count::Set(set) => Box::new(set.iter()),
        }
    }
}

/// A positive number without leading zeros.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

fn range(text: &str) -> Result<CountRange, CountError> {
    let bad = || CountError::Syntax(text.to_owned());
    let mut parts = text.split(':');
    let bounds = parts.next().ok_or_else(bad)?;
    let (min, max) = match bounds.strip_suffix('+') {
        Some(min) => (min, None),
        None => {
            let (min, max) = bounds.split_once('-').ok_or_else(bad)?;
            (min, Some(number(max).ok_or_else(bad)?))
        }
    };
    let min = number(min).ok_or_else(bad)?;
    let operand = match parts.next() {
        Some(operand) => number(operand).ok_or_else(bad)?,
        None => 1,
    };
    let operator = match parts.next() {
        Some(symbol) => Operator::from_symbol(symbol).ok_or_else(bad)?,
        None => Operator::Add,
    };
    if parts.next().is_some() {
        return Err(bad());
    }
    let range =
        CountRange::new(min, max, operator, operand).map_err(|source| CountError::Range {
            text: text.to_owned(),
            source,
        })?;
    Ok(CountRange {
        compact: true,
        ..range
    })
}

impl FromStr for Count {
    type Err = CountError;

    /// A number, an idset, or a range; all of them may stand in brackets.
    fn from_str(text: &str) -> Result<Count, CountError> {
        let inner = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        if let Some(n) = number(inner) {
            return Ok(Count::Fixed(n));
        }
        if inner.contains(',') {
            // Idsets may be bracketed themselves and have empty elements; counts may not.
            if inner.contains(['[', ']']) || inner.split(',').any(str::is_empty) {
                return Err(CountError::Syntax(text.to_owned()));
            }
            let set: Idset = inner.parse()?;
            return match set.ranges() {
                [] => Err(CountError::Syntax(text.to_owned())),
                [(0, _), ..] => Err(CountError::Zero(text.to_owned())),
                // 2,3,4 is the range 2-4.
                [(first, last)] => range(&format!("{first}-{last}")).map(Count::Range),
                _ => Ok(Count::Set(set)),
            };
        }
        // A range of one value is that value.
        range(inner).map(|range| match range.max {
            Some(max) if max == range.min => Count::Fixed(max),
            _ => Count::Range(range),
        })
    }
}

/// The compact form, with what may be left out left out.
impl fmt::Display for CountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            Some(max) => write!(f, "{}-{max}", self.min)?,
            None => write!(f, "{}+", self.min)?,
        }
        match (self.operator, self.operand) {
            (Operator::Add, 1) => Ok(()),
            (Operator::Add, operand) => write!(f, ":{operand}"),
            (operator, operand) => write!(f, ":{operand}:{}", operator.symbol()),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Fixed(n) => n.fmt(f),
            Count::Range(range) => range.fmt(f),
            Count::Set(set) => set.fmt(f),
        }
    }
}

impl Serialize for CountRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.compact {
            return s.collect_str(self);
        }
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("min", &self.min)?;
        if let Some(max) = self.max {
            map.serialize_entry("max", &max)?;
        }
        if (self.operator, self.operand) != (Operator::Add, 1) {
            map.serialize_entry("operator", &self.operator.symbol())?;
            map.serialize_entry("operand", &self.operand)?;
        }
        map.end()
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Count::Fixed(n) => n.serialize(s),
            Count::Range(range) => range.serialize(s),
            Count::Set(set) => set.serialize(s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, shown, first) in [
            ("4", "4", vec![4]),
            ("[4]", "4", vec![4]),
            ("1-5:2:+", "1-5:2", vec![1, 3, 5]),
            ("1-4:1:+", "1-4", vec![1, 2, 3, 4]),
            ("[1-4:2:*]", "1-4:2:*", vec![1, 2, 4]),
            ("2-20:2:^", "2-20:2:^", vec![2, 4, 16]),
            ("100+", "100+", vec![100, 101, 102]),
            ("1+:10:*", "1+:10:*", vec![1, 10, 100]),
            ("4,9,16-17", "4,9,16-17", vec![4, 9, 16, 17]),
            ("7-7:3", "7", vec![7]),
            ("2,3,4", "2-4", vec![2, 3, 4]),
        ] {
            let count: Count = text.parse().unwrap();
            assert_eq!(count.to_string(), shown);
            assert_eq!(
                count.iter().take(first.len()).collect::<Vec<_>>(),
                first,
                "{text}"
            );
        }
        let all = "1+:100000:*".parse::<Count>().unwrap();
        assert_eq!(all.iter().collect::<Vec<_>>(), [1, 100_000]);
    }

    #[test]
    fn refuses_what_is_no_count() {
        for (text, want) in [
            (
                "",
                "'' is neither a number, a set such as 2,4,8 nor a range such as 2-8:2:*",
            ),
            ("4-2", "'4-2': 'max' must not be less than 'min'"),
            (
                "1-4:1:*",
                "'1-4:1:*': 'operand' must be at least 2 for '*' and '^'",
            ),
            ("1-4:2:^", "'1-4:2:^': 'min' must be at least 2 for '^'"),
            ("0,1", "'0,1': counts must be positive"),
            ("3,2", "idset '3,2': '2' is out of order; ids must ascend"),
        ] {
            assert_eq!(text.parse::<Count>().unwrap_err().to_string(), want);
        }
        for text in [
            "0",
            "01",
            "-1",
            "+",
            "1-",
            "1:2",
            "1-2:0",
            "1-2:",
            "1-2:1:+:",
            "1-2:1:/",
            "[[1,2]]",
            "1,,2",
            "[1",
            "1]",
            "[[1]]",
            "1 ",
            "1-2-3",
            ",",
            "4294967296",
        ] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_walk(min in 1u32..50, span in prop::option::of(0u32..200),
                                    symbol in "[+*^]", operand in 1u32..9, limit in 0u32..300) {
            let operator = Operator::from_symbol(&symbol).unwrap();
            let max = span.map(|s| min + s);
            if let Ok(range) = CountRange::new(min, max, operator, operand) {
                let below: Vec<u32> = range.iter().take_while(|n| *n <= limit).collect();
                prop_assert_eq!(range.at_most(limit), below.last().copied());
                let count = Count::Range(range);
                prop_assert_eq!(count.allows(limit), below.contains(&limit));
                let back: Count = count.to_string().parse().unwrap();
                prop_assert!(back.iter().take(20).eq(range.iter().take(20)));
            }
        }
    }
}

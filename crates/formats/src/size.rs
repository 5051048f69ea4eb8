//! Numbers of bytes as options and configurations have them.

/// A number of bytes: a number that may have a point, and a suffix k or K, M, G.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: f64 = digits.parse().map_err(|_| "it is no number of bytes")?;
    let bytes = number * f64::from(factor);
    match (0. ..=f64::from(i32::MAX)).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(format!("it is not between 0 and {}", i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let sizes = ["0", "100M", "1.5k", "2K", "1G"].map(|text| parse(text).unwrap());
        assert_eq!(sizes, [0, 100 << 20, 1536, 2048, 1 << 30]);
        for refused in ["", "k", "-1", "2G", "1T", "nan"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}

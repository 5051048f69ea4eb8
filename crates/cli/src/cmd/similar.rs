//! Which command somebody who mistyped one may have meant.

/// How many are named at most.
const LIMIT: usize = 3;
/// Names that differ more have nothing to do with each other.
const FAR: usize = 2;

/// Names that go on where `word` ends, or else those with the fewest differences.
pub(crate) fn similar(word: &str, known: &[String]) -> Vec<String> {
    let mut names: Vec<&String> = known.iter().collect();
    names.sort();
    names.dedup();
    let longer = names.iter().filter(|n| n.starts_with(word));
    let longer: Vec<String> = longer.take(LIMIT).map(|n| (*n).clone()).collect();
    if !longer.is_empty() && !word.is_empty() {
        return longer;
    }
    let distances = names.iter().map(|name| (distance(word, name), name));
    // Replacing all of a short word would make it any other.
    let near = distances.filter(|(d, name)| *d <= FAR && *d < name.chars().count());
    let near: Vec<_> = near.collect();
    let least = near.iter().map(|(d, _)| *d).min();
    let nearest = near.iter().filter(|(d, _)| Some(*d) == least);
    nearest
        .take(LIMIT)
        .map(|(_, name)| (**name).clone())
        .collect()
}

/// Levenshtein's distance: letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(
            (distance("", "ab"), distance("ab", ""), distance("x", "x")),
            (2, 2, 0)
        );
    }

    #[test]
    fn suggestions() {
        let known = [
            "dmesg", "job", "jobs", "top", "beef", "mee", "mama", "lala", "baba", "dada",
        ];
        let known: Vec<String> = known.iter().map(|n| (*n).to_owned()).collect();
        let meant = |word| similar(word, &known);
        assert_eq!(meant("dmsg"), ["dmesg"]);
        assert_eq!(meant("joc"), ["job"]);
        assert_eq!(meant("mom"), ["job", "mama", "mee"]);
        assert_eq!(meant("bee"), ["beef"]);
        assert_eq!(meant("fafa"), ["baba", "dada", "lala"]);
        assert_eq!(meant("jo"), ["job", "jobs"]);
        assert!(meant("x").is_empty() && meant("").is_empty());
    }
}

//! Sorting that leaves equals where `std::sort` leaves them.
//!
//! Which of several equally good resources is taken follows from the order equals end up in. C++
//! implementations sort by quicksort with the median of three down to sixteen, then by insertion;
//! doing the same makes the same choices.

/// Ranges that are left to insertion.
const SMALL: usize = 16;

/// Sorts by `before`, a strict order.
pub(super) fn sort<T: Copy>(list: &mut [T], before: &impl Fn(&T, &T) -> bool) {
    let depth = 2 * list.len().checked_ilog2().unwrap_or(0);
    divide(list, depth, before);
    for i in 1..list.len() {
        let value = list[i];
        let mut hole = i;
        while hole > 0 && before(&value, &list[hole - 1]) {
            list[hole] = list[hole - 1];
            hole -= 1;
        }
        list[hole] = value;
    }
}

fn divide<T: Copy>(mut list: &mut [T], mut depth: u32, before: &impl Fn(&T, &T) -> bool) {
    while list.len() > SMALL {
        if depth == 0 {
            let by = |a: &T, b: &T| match (before(a, b), before(b, a)) {
                (true, _) => std::cmp::Ordering::Less,
                (_, true) => std::cmp::Ordering::Greater,
                _ => std::cmp::Ordering::Equal,
            };
            return list.sort_by(by);
        }
        depth -= 1;
        let cut = partition(list, before);
        let (left, right) = list.split_at_mut(cut);
        divide(right, depth, before);
        list = left;
    }
}

/// Moves the median of three to the front and parts the rest by it; where the second part begins.
fn partition<T: Copy>(list: &mut [T], before: &impl Fn(&T, &T) -> bool) -> usize {
    let (a, b, c) = (1, list.len() / 2, list.len() - 1);
    let less = |x: usize, y: usize| before(&list[x], &list[y]);
    let median = match less(a, b) {
        true if less(b, c) => b,
        true if less(a, c) => c,
        true => a,
        false if less(a, c) => a,
        false if less(b, c) => c,
        false => b,
    };
    list.swap(0, median);
    let (mut low, mut high) = (1, list.len());
    loop {
        while before(&list[low], &list[0]) {
            low += 1;
        }
        high -= 1;
        while before(&list[0], &list[high]) {
            high -= 1;
        }
        if low >= high {
            return low;
        }
        list.swap(low, high);
        low += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts(list in proptest::collection::vec(0..40u32, 0..400)) {
            let mut sorted = list.clone();
            sort(&mut sorted, &|a, b| a > b);
            let mut expected = list;
            expected.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn few_equals_keep_their_order() {
        let mut list: Vec<(u8, u8)> = (0..16).map(|i| (i % 2, i)).collect();
        sort(&mut list, &|a, b| a.0 < b.0);
        assert!(list.is_sorted());
    }
}

//! How much of each type is below the vertices that contain something.

use super::links::Links;
use super::{NOBODY, Word};
use rustc_hash::FxHashMap;

/// A table: a row for each vertex that contains others, a column for each type.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    rows: FxHashMap<u32, u32>,
    /// By word: the column of a type.
    columns: Vec<u16>,
    width: usize,
    cells: Vec<i64>,
}

impl Totals {
    /// Adds up a tree that is in preorder.
    pub(super) fn new(kind: &[Word], size: &[u32], parent: &[u32], words: usize) -> Totals {
        let mut totals = Totals {
            columns: vec![u16::MAX; words],
            ..Totals::default()
        };
        for k in kind {
            let column = &mut totals.columns[usize::from(k.0)];
            if *column == u16::MAX {
                *column = totals.width as u16;
                totals.width += 1;
            }
        }
        let mut last = (NOBODY, 0);
        for above in parent.iter().filter(|p| **p != NOBODY) {
            if last.0 != *above {
                let next = totals.rows.len() as u32;
                totals.rows.entry(*above).or_insert(next);
                last.0 = *above;
            }
        }
        totals.cells = vec![0; totals.rows.len() * totals.width];
        last = (NOBODY, 0);
        for v in (0..kind.len()).rev() {
            let above = parent[v];
            if above == NOBODY {
                continue;
            }
            if last.0 != above {
                last = (above, totals.rows[&above] as usize * totals.width);
            }
            let to = last.1;
            totals.cells[to + usize::from(totals.columns[usize::from(kind[v].0)])] +=
                i64::from(size[v]);
            if let Some(row) = totals
                .rows
                .get(&(v as u32))
                .filter(|_| parent.get(v + 1) == Some(&(v as u32)))
            {
                let from = *row as usize * totals.width;
                for column in 0..totals.width {
                    totals.cells[to + column] += totals.cells[from + column];
                }
            }
        }
        totals
    }

    /// Adds to what is in subtrees what is reached from them elsewhere, each vertex once.
    pub(super) fn add_shared(
        &mut self,
        links: &Links,
        parent: &[u32],
        end: &[u32],
        kind: &[Word],
        size: &[u32],
    ) {
        let mut more = Vec::new();
        for v in links.sharing(parent) {
            let mut sums = vec![0; self.width];
            for top in links
                .reach(v, end)
                .into_iter()
                .skip(1)
                .map(|part| part.start)
            {
                sums[usize::from(self.columns[usize::from(kind[top as usize].0)])] +=
                    i64::from(size[top as usize]);
                if let Some(row) = self.rows.get(&top) {
                    let from = *row as usize * self.width;
                    let cells = &self.cells[from..from + self.width];
                    sums.iter_mut()
                        .zip(cells)
                        .for_each(|(sum, cell)| *sum += cell);
                }
            }
            more.push((v, sums));
        }
        for (v, sums) in more {
            let next = self.rows.len() as u32;
            let row = *self.rows.entry(v).or_insert(next) as usize;
            let from = row * self.width;
            self.cells.resize(self.rows.len() * self.width, 0);
            let cells = &mut self.cells[from..from + self.width];
            cells
                .iter_mut()
                .zip(sums)
                .for_each(|(cell, sum)| *cell += sum);
        }
    }

    /// How much of a type is below a vertex, itself left out.
    pub(super) fn below(&self, v: u32, kind: Word) -> i64 {
        let column = self
            .columns
            .get(usize::from(kind.0))
            .copied()
            .unwrap_or(u16::MAX);
        match (self.rows.get(&v), column) {
            (None, _) | (_, u16::MAX) => 0,
            (Some(row), column) => self.cells[*row as usize * self.width + usize::from(column)],
        }
    }
}

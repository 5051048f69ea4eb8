//! How many equal shares whole pieces make.

/// Pieces are added one after the other, and a share is complete as soon as the pieces since the
/// last one reach its size: what is over is lost, for pieces are not divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    size: u64,
    complete: u64,
    open: u64,
}

impl Share {
    pub(super) fn of(size: u64) -> Share {
        Share {
            size,
            complete: 0,
            open: 0,
        }
    }

    pub(super) fn add(&mut self, piece: u64) {
        self.open += piece;
        if self.open >= self.size {
            self.complete += 1;
            self.open = 0;
        }
    }

    pub(super) fn shares(&self) -> u64 {
        self.complete
    }
}

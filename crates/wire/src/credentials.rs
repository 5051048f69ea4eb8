//! Who sent a message and what that user may do (RFC 12).

/// User id before a connector has set one.
pub const USERID_UNKNOWN: u32 = 0xffff_ffff;

/// No role at all: not assigned yet.
pub const ROLE_NONE: u32 = 0;
/// The instance owner, who may do everything.
pub const ROLE_OWNER: u32 = 1;
/// A guest user.
pub const ROLE_USER: u32 = 2;
/// The sender is attached to the broker that receives.
pub const ROLE_LOCAL: u32 = 4;
/// A guest with more rights than others, fewer than the owner.
pub const ROLE_ADMIN: u32 = 8;
/// Every role.
pub const ROLE_ALL: u32 = 0xffff_ffff;

/// Who sent a message, as established where it entered the instance (RFC 12).
///
/// ```
/// use wire::{Credentials, ROLE_ADMIN, ROLE_USER};
///
/// let guest = Credentials { userid: 5500, rolemask: ROLE_USER };
/// assert!(guest.may(ROLE_USER) && !guest.may(ROLE_ADMIN));
/// assert!(Credentials::owner(1000).may(ROLE_ADMIN), "the owner needs no other role");
/// assert!(guest.may_act_for(5500) && !guest.may_act_for(5501));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// POSIX user id, or [`USERID_UNKNOWN`].
    pub userid: u32,
    /// Bits of `ROLE_*`.
    pub rolemask: u32,
}

impl Default for Credentials {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Credentials {
    /// What a message has before a connector has looked at it.
    pub const UNKNOWN: Self = Self {
        userid: USERID_UNKNOWN,
        rolemask: ROLE_NONE,
    };

    /// The instance owner, arriving locally.
    pub const fn owner(userid: u32) -> Self {
        Self {
            userid,
            rolemask: ROLE_OWNER | ROLE_LOCAL,
        }
    }

    /// A guest, arriving locally.
    pub const fn guest(userid: u32) -> Self {
        Self {
            userid,
            rolemask: ROLE_USER | ROLE_LOCAL,
        }
    }

    /// Has the owner role.
    pub const fn is_owner(self) -> bool {
        self.rolemask & ROLE_OWNER != 0
    }

    /// May call what is open to the roles in `allow`: has one of them, or is the owner.
    pub const fn may(self, allow: u32) -> bool {
        self.rolemask & (allow | ROLE_OWNER) != 0
    }

    /// May act on what belongs to `userid`: is the owner, or that user.
    pub const fn may_act_for(self, userid: u32) -> bool {
        self.is_owner() || (self.rolemask & ROLE_USER != 0 && self.userid == userid)
    }

    /// May receive an event: any that is not private, one's own, and all as the owner.
    pub const fn may_see(self, private: bool, sender: u32) -> bool {
        !private || self.is_owner() || self.userid == sender
    }

    /// The credentials to give a message that claims `claimed` on a connection of `self`.
    ///
    /// The owner may stand in for others; what the owner leaves open, and all of a guest's, is the
    /// connection's own.
    #[must_use]
    pub const fn admit(self, claimed: Self) -> Self {
        if !self.is_owner() {
            return self;
        }
        Self {
            userid: if claimed.userid == USERID_UNKNOWN {
                self.userid
            } else {
                claimed.userid
            },
            rolemask: if claimed.rolemask == ROLE_NONE {
                self.rolemask
            } else {
                claimed.rolemask
            },
        }
    }

    /// As seen by another broker: no longer local.
    #[must_use]
    pub const fn from_afar(self) -> Self {
        Self {
            userid: self.userid,
            rolemask: self.rolemask & !ROLE_LOCAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_follows_rfc12() {
        let owner = Credentials::owner(10);
        let guest = Credentials::guest(20);
        let claim = |userid, rolemask| Credentials { userid, rolemask };
        for (connection, claimed, want) in [
            (owner, Credentials::UNKNOWN, owner),
            (owner, claim(5, ROLE_USER), claim(5, ROLE_USER)),
            (owner, claim(5, ROLE_NONE), claim(5, owner.rolemask)),
            (
                owner,
                claim(USERID_UNKNOWN, ROLE_USER),
                claim(10, ROLE_USER),
            ),
            (guest, Credentials::UNKNOWN, guest),
            (guest, claim(10, ROLE_OWNER), guest),
        ] {
            assert_eq!(
                connection.admit(claimed),
                want,
                "{connection:?} {claimed:?}"
            );
        }
    }

    #[test]
    fn roles() {
        let guest = Credentials::guest(20);
        assert!(guest.may(ROLE_LOCAL) && !guest.from_afar().may(ROLE_LOCAL));
        assert!(!Credentials::UNKNOWN.may(ROLE_ALL));
        assert!(guest.may_see(true, 20) && guest.may_see(false, 21) && !guest.may_see(true, 21));
        assert!(Credentials::owner(1).may_see(true, 21));
        let anonymous = Credentials {
            userid: 20,
            rolemask: ROLE_NONE,
        };
        assert!(
            !anonymous.may_act_for(20),
            "a user id without a role proves nothing"
        );
    }
}

//! Who may connect to a broker, and as what: the table `access` (flux-config-access(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::module::Meter;
use nix::unistd::{Gid, Group, Uid, User};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use wire::{Credentials, ROLE_ADMIN, ROLE_LOCAL, ROLE_OWNER, ROLE_USER};

/// The table does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[access]: {0}")]
pub(crate) struct AccessError(String);

/// The roles that can be given to guests.
const ROLES: [&str; 1] = ["admin"];

/// Users and groups that have a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Holders {
    users: BTreeSet<String>,
    groups: BTreeSet<String>,
}

/// The rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Access {
    allow_guest_user: bool,
    allow_root_owner: bool,
    /// For `job-list`; here it is only known to be a flag.
    private_mode: bool,
    roles: BTreeMap<String, Holders>,
}

impl Access {
    /// As a configuration says.
    pub(crate) fn read(config: &Value) -> Result<Self, AccessError> {
        match config.get("access") {
            None => Ok(Self::default()),
            // As a list its values would have no names.
            Some(Value::Array(_)) => Err(AccessError("expected a table".to_owned())),
            Some(table) => {
                let access = Self::deserialize(table).map_err(|e| AccessError(e.to_string()))?;
                let unknown = |name: &&String| !ROLES.contains(&name.as_str());
                match access.roles.keys().find(unknown) {
                    Some(name) => Err(AccessError(format!("roles.{name}: unknown role"))),
                    None => Ok(access),
                }
            }
        }
    }

    /// The rules, for the log.
    pub(crate) fn lines(&self) -> [String; 2] {
        [
            format!("allow-guest-user={}", self.allow_guest_user),
            format!("allow-root-owner={}", self.allow_root_owner),
        ]
    }

    /// What a user is who connects; none if there is no place for that one.
    pub(crate) fn admit(&self, userid: u32, owner: u32) -> Option<Credentials> {
        self.decide(userid, owner, || self.is_admin(userid))
    }

    fn decide(&self, userid: u32, owner: u32, is_admin: impl Fn() -> bool) -> Option<Credentials> {
        let role = if userid == owner || (self.allow_root_owner && userid == 0) {
            ROLE_OWNER
        } else if self.allow_guest_user {
            let admin = if is_admin() { ROLE_ADMIN } else { 0 };
            ROLE_USER | admin
        } else {
            return None;
        };
        let rolemask = role | ROLE_LOCAL;
        Some(Credentials { userid, rolemask })
    }

    /// Ask the system's user database, if a role depends on it.
    fn is_admin(&self, userid: u32) -> bool {
        let Some(Holders { users, groups }) = self.roles.get("admin") else {
            return false;
        };
        if users.is_empty() && groups.is_empty() {
            return false;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(userid)) else {
            return false;
        };
        users.contains(&user.name) || groups.iter().any(|group| is_member(&user, group))
    }
}

fn is_member(user: &User, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else {
        return false;
    };
    let of_user = |name: &std::ffi::CStr, gid: Gid| nix::unistd::getgrouplist(name, gid);
    let Ok(name) = std::ffi::CString::new(user.name.as_str()) else {
        return false;
    };
    of_user(&name, user.gid).is_ok_and(|gids| gids.contains(&group.gid))
}

/// Debug flags of `connector-local` (`flux module debug`), each for one connection.
mod pretend {
    /// The connection is refused.
    pub(super) const REFUSED: u32 = 1;
    /// Who would be the owner is a guest.
    pub(super) const GUEST: u32 = 4;
}

/// The user id of nobody in particular.
const NOBODY: u32 = u32::MAX;

/// What decides about connections.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) owner: u32,
    pub(crate) access: watch::Receiver<Access>,
    /// Of `connector-local`, for its debug flags.
    pub(crate) meter: Arc<Meter>,
}

impl Door {
    /// What a user is who connects, or why that one may not.
    pub(crate) fn admit(&self, userid: u32) -> Result<Credentials, String> {
        if self.meter.take_debug_flag(pretend::REFUSED) {
            return Err(format!(
                "user {userid} may not connect: a debug flag says so"
            ));
        }
        let admitted = self.access.borrow().admit(userid, self.owner);
        let cred = admitted.ok_or_else(|| format!("user {userid} may not connect"))?;
        if cred.rolemask & ROLE_OWNER != 0 && self.meter.take_debug_flag(pretend::GUEST) {
            let (userid, rolemask) = (NOBODY, ROLE_USER | ROLE_LOCAL);
            return Ok(Credentials { userid, rolemask });
        }
        Ok(cred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use wire::Message;

    fn roles(access: &Value, userid: u32) -> Option<u32> {
        let access = Access::read(&json!({ "access": access })).unwrap();
        let cred = access.decide(userid, 1000, || userid == 7);
        cred.map(|c| c.rolemask & !ROLE_LOCAL)
    }

    #[test]
    fn pretences_last_for_one_connection() {
        let (_, access) = watch::channel(Access::default());
        let meter = Arc::new(Meter::new("connector-local"));
        let debug = |flags: u32| {
            let request = json!({ "op": "set", "flags": flags });
            let payload = Some(wire::json_payload(&request).unwrap());
            let mut msg = Message::request("connector-local.debug", 0, 1, 0, payload);
            msg.set_credentials(Credentials::owner(7));
            meter.answer(&msg).unwrap().unwrap();
        };
        let door = Door {
            owner: 7,
            access,
            meter: meter.clone(),
        };
        let owner = Ok(ROLE_OWNER | ROLE_LOCAL);
        let role = |who| door.admit(who).map(|cred| cred.rolemask);
        assert_eq!(role(7), owner);
        debug(1);
        assert!(role(7).is_err());
        assert_eq!(role(7), owner);
        debug(4);
        assert!(role(8).is_err());
        assert_eq!(role(7), Ok(ROLE_USER | ROLE_LOCAL));
        assert_eq!(role(7), owner);
    }

    #[test]
    fn who_is_let_in() {
        let closed = json!({});
        assert_eq!(roles(&closed, 1000), Some(ROLE_OWNER));
        assert_eq!((roles(&closed, 0), roles(&closed, 5)), (None, None));
        let open = json!({ "allow-guest-user": true, "private-mode": true });
        assert_eq!(
            (roles(&open, 0), roles(&open, 5)),
            (Some(ROLE_USER), Some(ROLE_USER))
        );
        assert_eq!(roles(&open, 7), Some(ROLE_USER | ROLE_ADMIN));
        let root = json!({ "allow-root-owner": true });
        assert_eq!((roles(&root, 0), roles(&root, 5)), (Some(ROLE_OWNER), None));
    }

    #[test]
    fn the_user_database_says_who_has_a_role() {
        let access = |holders: Value| {
            let roles = json!({ "roles": { "admin": holders } });
            Access::read(&json!({ "access": roles })).unwrap()
        };
        assert!(access(json!({ "users": ["root"] })).is_admin(0));
        assert!(access(json!({ "groups": ["root"] })).is_admin(0));
        assert!(!access(json!({ "users": ["nobody here"], "groups": ["none"] })).is_admin(0));
        assert!(!access(json!({ "users": ["root"] })).is_admin(4_000_000_000));
    }

    #[test]
    fn bad_tables() {
        for table in [
            json!({ "allow_root-owner": true }),
            json!({ "allow-guest-user": 42 }),
            json!({ "roles": { "king": {} } }),
            json!({ "roles": { "admin": { "users": "me" } } }),
            json!([]),
        ] {
            let text = Access::read(&json!({ "access": table })).unwrap_err();
            assert!(text.to_string().starts_with("[access]: "), "{text}");
        }
    }
}

//! Who may use a queue: `policy.access` (RFC 33).

use formats::queues::{Access, Queues};
use nix::unistd::{Gid, Group, Uid, User};
use wire::RpcError;

/// Whether a user may submit to a queue, or move a job there. Without a restriction nothing is looked up.
pub(crate) async fn check(
    queues: &Queues,
    queue: Option<&str>,
    userid: u32,
) -> Result<(), RpcError> {
    if !queues.restricts_access() {
        return Ok(());
    }
    let access = queues.policy(queue).access;
    if access == Access::default() {
        return Ok(());
    }
    // The database of users may be on another machine.
    let looked = tokio::task::spawn_blocking(move || Person::of(userid).may(&access));
    match looked.await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => {
            let of = queue.map_or_else(
                || "this instance".to_owned(),
                |name| format!("queue {name}"),
            );
            let why = format!("access to {of} is restricted, and user {userid} has none");
            Err(RpcError::new(libc::EPERM, why))
        }
    }
}

/// What the databases of users and groups know of somebody.
#[derive(Debug, Default)]
struct Person {
    name: Option<String>,
    groups: Vec<Gid>,
}

impl Person {
    fn of(userid: u32) -> Self {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(userid)) else {
            return Self::default();
        };
        let name = std::ffi::CString::new(user.name.as_bytes()).unwrap_or_default();
        Self {
            groups: nix::unistd::getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]),
            name: Some(user.name),
        }
    }

    fn may(&self, access: &Access) -> bool {
        let users = access.allow_user.iter().flatten();
        let groups = access.allow_group.iter().flatten();
        let is_member = |group: &String| match Group::from_name(group) {
            Ok(Some(group)) => self.groups.contains(&group.gid),
            _ => false,
        };
        users
            .into_iter()
            .any(|user| self.name.as_ref() == Some(user))
            || groups.into_iter().any(is_member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn root() -> (User, Group) {
        let user = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
        let group = Group::from_gid(user.gid).unwrap().unwrap();
        (user, group)
    }

    #[test]
    fn users_and_members_of_groups_may() {
        let (user, group) = root();
        let allow = |users: Option<&str>, groups: Option<&str>| Access {
            allow_user: users.map(|name| vec!["nobody-else".to_owned(), name.to_owned()]),
            allow_group: groups.map(|name| vec![name.to_owned()]),
        };
        let person = Person::of(0);
        assert!(person.may(&allow(Some(&user.name), None)));
        assert!(person.may(&allow(None, Some(&group.name))));
        assert!(person.may(&allow(Some("x"), Some(&group.name))));
        assert!(!person.may(&allow(Some("x"), Some("no-such-group"))));
        assert!(!Person::default().may(&allow(Some(&user.name), Some(&group.name))));
    }

    #[tokio::test]
    async fn only_restricted_queues_ask() {
        let (user, _) = root();
        let config = json!({"queues": {
            "open": {},
            "own": {"policy": {"access": {"allow-user": [user.name]}}},
            "shut": {"policy": {"access": {"allow-group": []}}},
        }});
        let queues = Queues::from_config(&config).unwrap();
        for (queue, may) in [("open", true), ("own", true), ("shut", false)] {
            assert_eq!(check(&queues, Some(queue), 0).await.is_ok(), may, "{queue}");
        }
        let error = check(&queues, Some("shut"), 0).await.unwrap_err();
        assert_eq!(error.errno, libc::EPERM);
        assert!(error.to_string().contains("queue shut"), "{error}");
    }
}

//! Messages as text for people who trace them, in the lines `FLUX_HANDLE_TRACE` users know.

use std::fmt;

use crate::message::{Flags, Kind, Message, NODEID_ANY, NODEID_UPSTREAM};
use crate::{ROLE_ADMIN, ROLE_ALL, ROLE_LOCAL, ROLE_NONE, ROLE_OWNER, ROLE_USER, USERID_UNKNOWN};

/// Bytes of a binary payload that are shown.
const SHOWN: usize = 37;

/// Shows a message; see [`Message::dump`].
pub struct Dump<'a> {
    msg: &'a Message,
    seconds: f64,
}

impl Message {
    /// The message in several lines, with the seconds since some start.
    pub fn dump(&self, seconds: f64) -> Dump<'_> {
        Dump { msg: self, seconds }
    }
}

fn names(mask: u32, table: &[(u32, &str)], none: &str) -> String {
    let mut left = mask;
    let mut out = Vec::new();
    for &(bit, name) in table {
        if left & bit != 0 {
            left &= !bit;
            out.push(name.to_owned());
        }
    }
    if left != 0 {
        out.push(format!("{left:#x}"));
    }
    if out.is_empty() {
        return none.to_owned();
    }
    out.join(",")
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let msg = self.msg;
        let mark = match msg.kind() {
            Kind::Request { .. } => '>',
            Kind::Response { .. } => '<',
            Kind::Event { .. } => 'e',
            Kind::Control { .. } => 'c',
        };
        writeln!(f, "--------------------------------------")?;
        writeln!(f, "{mark} {:.5}", self.seconds)?;
        if msg.has_topic() {
            writeln!(f, "{mark} {}", msg.topic())?;
        }
        let flags = [
            (Flags::TOPIC, "topic"),
            (Flags::PAYLOAD, "payload"),
            (Flags::NORESPONSE, "noresponse"),
            (Flags::ROUTE, "route"),
            (Flags::UPSTREAM, "upstream"),
            (Flags::PRIVATE, "private"),
            (Flags::STREAMING, "streaming"),
            (Flags::USER1, "user1"),
        ]
        .map(|(bit, name)| (u32::from(bit), name));
        let roles = [
            (ROLE_OWNER, "owner"),
            (ROLE_USER, "user"),
            (ROLE_LOCAL, "local"),
            (ROLE_ADMIN, "admin"),
        ];
        let rolemask = match msg.rolemask() {
            ROLE_ALL => "all".to_owned(),
            mask => names(mask, &roles, if mask == ROLE_NONE { "none" } else { "" }),
        };
        let userid = match msg.userid() {
            USERID_UNKNOWN => "unknown".to_owned(),
            id => id.to_string(),
        };
        let flags = names(u32::from(msg.flags().0), &flags, "0");
        write!(
            f,
            "{mark} flags={flags} userid={userid} rolemask={rolemask} "
        )?;
        match msg.kind() {
            Kind::Request { nodeid, matchtag } => {
                let nodeid = match nodeid {
                    NODEID_ANY => "any".to_owned(),
                    NODEID_UPSTREAM => "upstream".to_owned(),
                    rank => rank.to_string(),
                };
                writeln!(f, "nodeid={nodeid} matchtag={matchtag}")?;
            }
            Kind::Response { errnum, matchtag } => {
                writeln!(f, "errnum={errnum} matchtag={matchtag}")?;
            }
            Kind::Event { sequence } => writeln!(f, "sequence={sequence}")?,
            Kind::Control { kind, status } => writeln!(f, "type={kind} status={status}")?,
        }
        if !msg.routes().is_empty() {
            writeln!(f, "{mark} |{}|", msg.route_stack())?;
        }
        match (msg.payload(), msg.text()) {
            (Some(bytes), Some(text)) if bytes.ends_with(b"\0") => writeln!(f, "{mark} {text}"),
            (Some(bytes), _) => {
                write!(f, "{mark} ")?;
                for byte in bytes.iter().take(SHOWN) {
                    write!(f, "{byte:02X}")?;
                }
                writeln!(f, "{}", if bytes.len() > SHOWN { "..." } else { "" })
            }
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;
    use bytes::Bytes;

    #[test]
    fn lines() {
        let payload = crate::string_payload("{}");
        let mut msg = Message::request("a.b", NODEID_ANY, 3, Flags::STREAMING, Some(payload));
        msg.set_credentials(Credentials::owner(7));
        msg.push_route("12345678-9".into());
        insta::assert_snapshot!(msg.dump(0.5), @r"
        --------------------------------------
        > 0.50000
        > a.b
        > flags=topic,payload,route,streaming userid=7 rolemask=owner,local nodeid=any matchtag=3
        > |12345678|
        > {}
        ");
        let msg = Message::control(1, 2, Some(Bytes::from_static(&[0xab; 40])));
        insta::assert_snapshot!(msg.dump(0.), @r"
        --------------------------------------
        c 0.00000
        c flags=payload userid=unknown rolemask=none type=1 status=2
        c ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB...
        ");
    }
}

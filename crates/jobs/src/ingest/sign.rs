//! Who signed a job request (RFC 38), and what is in it.

use formats::signed;
use wire::RpcError;

/// The jobspec text within `text`, which must be from `userid`. Without a signature anybody can say so: only the owner's
/// own jobs, which need nobody's trust, can be without.
pub(super) fn unwrap(text: &str, userid: u32, is_owner: bool) -> Result<String, RpcError> {
    let invalid = |what: String| RpcError::new(libc::EINVAL, what);
    let request = signed::unwrap(text).map_err(|e| invalid(e.to_string()))?;
    if request.mechanism != "none" || request.signature != "none" {
        let what = format!("signing mechanism {:?} is not supported", request.mechanism);
        return Err(invalid(what));
    }
    if request.userid != userid {
        let what = format!("signer={} != requestor={userid}", request.userid);
        return Err(RpcError::new(libc::EPERM, what));
    }
    if !is_owner {
        let what = "only the instance owner can use sign-type=none";
        return Err(RpcError::new(libc::EPERM, what));
    }
    let mut payload = request.payload;
    if payload.last() == Some(&0) {
        payload.pop();
    }
    String::from_utf8(payload).map_err(|e| invalid(format!("signed request: payload: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_mechanism_are_checked() {
        let good = signed::wrap_none(1000, b"{}");
        assert_eq!(unwrap(&good, 1000, true).unwrap(), "{}");
        assert_eq!(unwrap(&good, 1, true).unwrap_err().errno, libc::EPERM);
        assert_eq!(unwrap(&good, 1000, false).unwrap_err().errno, libc::EPERM);
        let forged = good.replace(".none", ".munge");
        assert_eq!(unwrap(&forged, 1000, true).unwrap_err().errno, libc::EINVAL);
        assert_eq!(
            unwrap("nonsense", 1000, true).unwrap_err().errno,
            libc::EINVAL
        );
    }
}

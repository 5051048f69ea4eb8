//! Topic strings (RFC 3): service names and the topics derived from them.

/// The service a request topic addresses: everything before the first period.
///
/// ```
/// assert_eq!(wire::service_of("job-manager.submit"), "job-manager");
/// assert_eq!(wire::method_of("a.b.c"), "b.c");
/// ```
pub fn service_of(topic: &str) -> &str {
    topic.split_once('.').map_or(topic, |(service, _)| service)
}

/// The method a request topic names: what follows the first period, "" without one.
pub fn method_of(topic: &str) -> &str {
    topic.split_once('.').map_or("", |(_, method)| method)
}

/// Whether a service can have this name: not empty and one word.
pub fn is_service_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('.')
}

/// Topic that tells a service a client is gone: the last word replaced by `disconnect`.
pub fn disconnect_topic(topic: &str) -> String {
    match topic.rsplit_once('.') {
        Some((service, _)) => format!("{service}.disconnect"),
        None => "disconnect".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        assert_eq!(service_of("kvs.lookup"), "kvs");
        assert_eq!(service_of("a.b.c"), "a");
        assert_eq!(service_of("plain"), "plain");
        assert_eq!((method_of("plain"), method_of(".x")), ("", "x"));
        assert_eq!(disconnect_topic("a.b.c"), "a.b.disconnect");
        assert_eq!(disconnect_topic("plain"), "disconnect");
        assert!(is_service_name("a") && !is_service_name("a.b") && !is_service_name(""));
    }
}

//! Where `resource.reload` reads resources from: a file with R, or a folder with what hwloc says of each rank.

use std::path::Path;

use formats::ResourceSet;
use formats::resource_set::hwloc::Node;
use wire::RpcError;

/// Reads it. Ranks beyond `size` need `force`.
pub(super) async fn read(
    path: &Path,
    xml: bool,
    size: u32,
    force: bool,
) -> Result<ResourceSet, RpcError> {
    let set = match xml {
        true => read_xml(path).await?,
        false => {
            let text = read_text(path).await?;
            text.parse().map_err(|e| named(path, libc::EINVAL, &e))?
        }
    };
    match set.ranks().last() {
        Some(last) if last >= size && !force => Err(RpcError::new(
            libc::EINVAL,
            format!("resource object contains ranks exceeding size={size} (override with -f)"),
        )),
        _ => Ok(set),
    }
}

/// `RANK.xml` for each rank, from 0.
async fn read_xml(folder: &Path) -> Result<ResourceSet, RpcError> {
    let mut set = ResourceSet::new();
    for rank in 0.. {
        let path = folder.join(format!("{rank}.xml"));
        if rank > 0 && !path.exists() {
            break;
        }
        let text = read_text(&path).await?;
        let node = Node::parse(&text).map_err(|e| named(&path, libc::EINVAL, &e))?;
        let host = node.host.clone();
        let host = host.ok_or_else(|| named(&path, libc::EINVAL, &"there is no HostName"))?;
        set.merge(&node.to_set(rank, &host));
    }
    Ok(set)
}

async fn read_text(path: &Path) -> Result<String, RpcError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|e| named(path, e.raw_os_error().unwrap_or(libc::EIO), &e))
}

fn named(path: &Path, errno: i32, why: &dyn std::fmt::Display) -> RpcError {
    RpcError::new(errno, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(host: &str) -> String {
        format!(
            "<topology><object type=\"Machine\" cpuset=\"0x3\"><info name=\"HostName\" value=\"{host}\"/>\
            <object type=\"Core\" cpuset=\"0x1\"/><object type=\"Core\" cpuset=\"0x2\"/></object></topology>"
        )
    }

    #[tokio::test]
    async fn a_folder_of_topologies() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            read(dir.path(), true, 2, false).await.unwrap_err().errno,
            libc::ENOENT
        );
        for (rank, host) in ["a", "b"].into_iter().enumerate() {
            std::fs::write(dir.path().join(format!("{rank}.xml")), xml(host)).unwrap();
        }
        let set = read(dir.path(), true, 2, false).await.unwrap();
        assert_eq!((set.nnodes(), set.ncores()), (2, 4));
        assert_eq!(
            read(dir.path(), true, 1, false).await.unwrap_err().errno,
            libc::EINVAL
        );
        assert!(read(dir.path(), true, 1, true).await.is_ok());
        std::fs::write(dir.path().join("1.xml"), "<topology>").unwrap();
        assert_eq!(
            read(dir.path(), true, 2, false).await.unwrap_err().errno,
            libc::EINVAL
        );
    }
}

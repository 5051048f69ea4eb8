//! Shell option `hwloc`: the node's topology as a file for the tasks, all of it or what the job has.
//!
//! The broker makes the XML. The library that cuts it down is loaded only when that is asked for: starting the shell
//! should not take longer for it.

use crate::{Fatal, affinity::Machine};
use client::{Handle, Node};
use formats::Idset;
use serde_json::json;
use std::{
    ffi::{CStr, CString, c_char, c_int, c_ulong, c_void},
    path::Path,
    ptr::{self, NonNull},
};

/// Writes the file into `dir`, and returns its path.
pub async fn export(
    handle: &Handle,
    cores: &Idset,
    restrict: bool,
    dir: &Path,
) -> Result<String, Fatal> {
    let fatal = |e: &dyn std::fmt::Display| Fatal::new(format!("hwloc.xmlfile: {e}"));
    let answer = handle.rpc("resource.topo-get", Node::Any, &json!({})).await;
    let answer = answer.map_err(|e| fatal(&e))?;
    let whole = answer
        .text()
        .ok_or_else(|| fatal(&"the broker sent no topology"))?;
    let path = dir.join("hwloc.xml");
    let part = match restrict {
        false => None,
        true => {
            let machine = Machine::read(Path::new("/sys/devices/system/cpu"));
            let cpus = machine.and_then(|m| m.cpus(cores));
            let cpus =
                cpus.ok_or_else(|| fatal(&format!("this node does not have cores {cores}")))?;
            Some(cut(whole, &cpus).map_err(|e| fatal(&e))?)
        }
    };
    std::fs::write(&path, part.as_deref().unwrap_or(whole)).map_err(|e| {
        fatal(&format!(
            "writing {}: {}",
            path.display(),
            crate::log::os_error(&e)
        ))
    })?;
    Ok(path.to_string_lossy().into_owned())
}

/// Calls a function of the library.
macro_rules! call {
    ($library:expr, $symbol:literal, ($($kind:ty),*) -> $result:ty $(, $argument:expr)*) => {{
        // SAFETY: the library stays loaded, and the name ends with a zero.
        let symbol = unsafe { libc::dlsym($library.as_ptr(), concat!($symbol, "\0").as_ptr().cast()) };
        let symbol = NonNull::new(symbol).ok_or(concat!("libhwloc has no function ", $symbol))?;
        type Function = unsafe extern "C" fn($($kind),*) -> $result;
        // SAFETY: hwloc.h declares the function so.
        let function = unsafe { std::mem::transmute::<NonNull<c_void>, Function>(symbol) };
        // SAFETY: pointers are to what hwloc has made, or outlive the call.
        unsafe { function($($argument),*) }
    }};
}

/// The part of a topology that has these CPUs. After an error the shell ends, so that nothing needs freeing.
fn cut(xml: &str, cpus: &Idset) -> Result<String, String> {
    // SAFETY: the name is a C string.
    let library = unsafe {
        libc::dlopen(
            c"libhwloc.so.15".as_ptr(),
            libc::RTLD_NOW | libc::RTLD_LOCAL,
        )
    };
    let library = NonNull::new(library)
        .ok_or("libhwloc.so.15 cannot be loaded, which hwloc.restrict needs")?;
    let text = |text: String| CString::new(text).map_err(|e| e.to_string());
    let (xml, list) = (text(xml.to_owned())?, text(cpus.to_string())?);
    let length = c_int::try_from(xml.as_bytes_with_nul().len()).map_err(|e| e.to_string())?;
    type Pointer = *mut c_void;
    let check = |what: &str, code: c_int| match code {
        0.. => Ok(()),
        _ => Err(format!("hwloc cannot {what}")),
    };

    let mut topology: Pointer = ptr::null_mut();
    let made = call!(library, "hwloc_topology_init", (*mut Pointer) -> c_int, &mut topology);
    check("make a topology", made)?;
    let taken = call!(
        library, "hwloc_topology_set_xmlbuffer", (Pointer, *const c_char, c_int) -> c_int,
        topology, xml.as_ptr(), length
    );
    check("take the broker's topology", taken)?;
    let loaded = call!(library, "hwloc_topology_load", (Pointer) -> c_int, topology);
    check("read the broker's topology", loaded)?;
    let set = call!(library, "hwloc_bitmap_alloc", () -> Pointer);
    let parsed = call!(
        library, "hwloc_bitmap_list_sscanf", (Pointer, *const c_char) -> c_int,
        set, list.as_ptr()
    );
    check("read a list of CPUs", parsed)?;
    let cut = call!(
        library, "hwloc_topology_restrict", (Pointer, Pointer, c_ulong) -> c_int,
        topology, set, 0
    );
    check(&format!("cut the topology down to CPUs {cpus}"), cut)?;
    let (mut buffer, mut length): (*mut c_char, c_int) = (ptr::null_mut(), 0);
    let written = call!(
        library, "hwloc_topology_export_xmlbuffer",
        (Pointer, *mut *mut c_char, *mut c_int, c_ulong) -> c_int,
        topology, &mut buffer, &mut length, 0
    );
    check("write XML", written)?;
    // SAFETY: hwloc has made a C string.
    let part = unsafe { CStr::from_ptr(buffer) }
        .to_string_lossy()
        .into_owned();
    call!(library, "hwloc_free_xmlbuffer", (Pointer, *mut c_char) -> (), topology, buffer);
    call!(library, "hwloc_bitmap_free", (Pointer) -> (), set);
    call!(library, "hwloc_topology_destroy", (Pointer) -> (), topology);
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x3" complete_cpuset="0x3" allowed_cpuset="0x3" nodeset="0x1" complete_nodeset="0x1" allowed_nodeset="0x1" gp_index="1">
    <object type="NUMANode" os_index="0" cpuset="0x3" complete_cpuset="0x3" nodeset="0x1" complete_nodeset="0x1" gp_index="2" local_memory="1024"/>
    <object type="Core" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1" gp_index="3">
      <object type="PU" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1" gp_index="4"/>
    </object>
    <object type="Core" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x1" complete_nodeset="0x1" gp_index="5">
      <object type="PU" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x1" complete_nodeset="0x1" gp_index="6"/>
    </object>
  </object>
</topology>
"#;

    #[test]
    fn a_part_of_a_topology() {
        let part = cut(XML, &"1".parse().unwrap()).unwrap();
        assert_eq!(part.matches("type=\"PU\"").count(), 1, "{part}");
        assert!(part.contains("type=\"PU\" os_index=\"1\""), "{part}");
        assert!(cut(XML, &"7".parse().unwrap()).is_err());
        assert!(cut("<topology>", &"0".parse().unwrap()).is_err());
    }
}

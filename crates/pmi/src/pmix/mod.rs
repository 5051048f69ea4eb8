//! A PMIx server for the tasks of one shell, over the system's libpmix.
//!
//! libpmix is loaded when a [`Server`] is started and is nothing that has to be there otherwise. It talks to the tasks on
//! threads of its own; what needs the other shells comes to the host as a [`Request`], on such a thread. No lock of ours is
//! held in either direction.

mod abi;
mod calls;
mod library;

pub use calls::{Consent, Reply, Request};

use abi::{Infos, Made, Proc, SUCCESS, Status};
use library::Library;
use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr::null_mut,
};

/// What libpmix could not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The job, as its tasks are told about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The name of the job's processes.
    pub nspace: String,
    /// This shell's place among the nodes.
    pub node: u32,
    /// The hosts of the nodes.
    pub hosts: Vec<String>,
    /// The tasks of each node, ascending.
    pub tasks: Vec<Vec<u32>>,
    /// The job's directory on this node.
    pub tmpdir: String,
}

impl Job {
    fn size(&self) -> u32 {
        self.tasks.iter().map(Vec::len).sum::<usize>() as u32
    }

    fn local(&self) -> &[u32] {
        self.tasks
            .get(self.node as usize)
            .map_or(&[], Vec::as_slice)
    }

    /// Names of the nodes that tell them apart, also where several are on one host.
    fn names(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let unique = self.hosts.iter().all(|host| seen.insert(host));
        let name = |(i, host): (usize, &String)| match unique {
            true => host.clone(),
            false => format!("{host}-{i}"),
        };
        self.hosts.iter().enumerate().map(name).collect()
    }

    /// The tasks of all nodes: nodes are separated by `;`, tasks by `,`.
    fn layout(&self) -> String {
        let nodes: Vec<String> = self.tasks.iter().map(|tasks| list(tasks)).collect();
        nodes.join(";")
    }
}

fn list(ranks: &[u32]) -> String {
    let ranks: Vec<String> = ranks.iter().map(u32::to_string).collect();
    ranks.join(",")
}

/// The server. There is one in a process.
pub struct Server {
    library: Library,
    nspace: String,
}

impl Server {
    /// Loads libpmix and starts a server that knows the job. `host` is called from other threads.
    pub fn start(
        job: &Job,
        host: impl Fn(Request) + Send + Sync + 'static,
    ) -> Result<Server, Error> {
        let library = Library::load()?;
        if calls::HOST.set(Box::new(host)).is_err() {
            return Err(Error("there is a server in this process already".into()));
        }
        let names = job.names();
        let mut infos = Infos::default();
        infos.text("pmix.srvr.tmpdir", &job.tmpdir);
        infos.rank("pmix.srv.rank", job.node);
        if let Some(name) = names.get(job.node as usize) {
            infos.text("pmix.hname", name);
        }
        // SAFETY: the module is static; the infos stay during the call.
        let started = unsafe { (library.init)(&calls::MODULE, infos.as_ptr(), infos.len()) };
        library.check("PMIx_server_init", started)?;
        let server = Server {
            library,
            nspace: job.nspace.clone(),
        };
        server.register(job, &names)?;
        Ok(server)
    }

    /// Tells libpmix about the job and its local tasks.
    fn register(&self, job: &Job, names: &[String]) -> Result<(), Error> {
        let (size, local) = (job.size(), job.local());
        let mut infos = Infos::default();
        infos.text("pmix.jobid", &job.nspace);
        infos.text("pmix.lpeers", &list(local));
        infos.made(
            "pmix.nmap",
            self.compact(self.library.generate_regex, &names.join(","))?,
        );
        infos.made(
            "pmix.pmap",
            self.compact(self.library.generate_ppn, &job.layout())?,
        );
        infos.text("pmix.tmpdir", &job.tmpdir);
        infos.flag("pmix.tdir.rmclean");
        infos.number("pmix.job.napps", 1);
        infos.number("pmix.local.size", local.len() as u32);
        infos.number("pmix.node.size", local.len() as u32);
        infos.number("pmix.univ.size", size);
        infos.number("pmix.job.size", size);
        infos.number("pmix.max.size", size);
        infos.number("pmix.num.nodes", names.len() as u32);
        infos.number("pmix.appnum", 0);
        if let Some(first) = local.first() {
            infos.rank("pmix.lldr", *first);
        }
        for (node, tasks) in job.tasks.iter().enumerate() {
            for (index, rank) in tasks.iter().enumerate() {
                let mut task = Infos::default();
                task.rank("pmix.rank", *rank);
                task.number("pmix.nodeid", node as u32);
                task.short("pmix.lrank", index as u16);
                task.short("pmix.nrank", index as u16);
                infos.infos("pmix.pdata", task);
            }
        }
        let all = Proc::new(&job.nspace, abi::WILDCARD);
        // SAFETY: the name and the infos stay during the call, which without a callback waits for its end.
        let registered = unsafe {
            (self.library.register_nspace)(
                all.nspace.as_ptr(),
                local.len() as i32,
                infos.as_ptr(),
                infos.len(),
                None,
                null_mut(),
            )
        };
        self.library
            .check("PMIx_server_register_nspace", registered)
    }

    /// A list in libpmix's own compact form.
    fn compact(&self, function: abi::Regex, list: &str) -> Result<Made, Error> {
        let list = CString::new(list).map_err(|e| Error(e.to_string()))?;
        let mut made = Made(null_mut());
        // SAFETY: the list is a C string; the answer is ours to free.
        let status = unsafe { function(list.as_ptr(), &mut made.0) };
        self.library.check("PMIx_generate_regex", status)?;
        Ok(made)
    }

    /// Lets the task `rank` connect; returns what its environment needs for that.
    pub fn admit(&self, rank: u32) -> Result<Vec<(String, String)>, Error> {
        let proc = Proc::new(&self.nspace, rank);
        let mut env = null_mut();
        // SAFETY: the environment is an array of strings with a null pointer at its end, which is ours to free.
        let set_up = unsafe { (self.library.setup_fork)(&proc, &mut env) };
        self.library.check("PMIx_server_setup_fork", set_up)?;
        // SAFETY: as above.
        let env = unsafe { take_strings(env) };
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        // SAFETY: the process stays during the call, which without a callback waits for its end.
        let registered = unsafe {
            (self.library.register_client)(
                &proc,
                uid.as_raw(),
                gid.as_raw(),
                null_mut(),
                None,
                null_mut(),
            )
        };
        self.library
            .check("PMIx_server_register_client", registered)?;
        Ok(env
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// Looks for what the local task `rank` has put, and waits for it; `found` is called on another thread.
    pub fn look_up(&self, rank: u32, found: impl FnOnce(Option<Vec<u8>>) + Send + 'static) {
        let proc = Proc::new(&self.nspace, rank);
        let found: Box<Found> = Box::new(Box::new(found));
        let token = Box::into_raw(found);
        // SAFETY: libpmix calls `looked_up` once if it says so, and never otherwise.
        unsafe {
            let status = (self.library.dmodex_request)(&proc, looked_up, token.cast());
            if status != SUCCESS {
                Box::from_raw(token)(None);
            }
        }
    }

    /// Ends the server. Tasks that are still connected lose it.
    pub fn stop(self) {
        // SAFETY: nothing of libpmix is called after this. A failure leaves nothing to do.
        unsafe { (self.library.finalize)() };
    }
}

type Found = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;

unsafe extern "C" fn looked_up(
    status: Status,
    data: *mut c_char,
    length: usize,
    token: *mut c_void,
) {
    // SAFETY: the token is from `look_up`; libpmix frees the data when this has returned.
    unsafe {
        let found = Box::from_raw(token.cast::<Found>());
        let is_there = status == SUCCESS && !data.is_null();
        let data = is_there.then(|| std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec());
        found(data);
    }
}

/// Copies and frees an array of strings.
///
/// # Safety
/// `strings` is null, or an array of strings with a null pointer at its end, all from malloc.
unsafe fn take_strings(strings: *mut *mut c_char) -> Vec<String> {
    let mut taken = Vec::new();
    if strings.is_null() {
        return taken;
    }
    // SAFETY: of the caller.
    unsafe {
        let mut at = strings;
        while !(*at).is_null() {
            taken.push(CStr::from_ptr(*at).to_string_lossy().into_owned());
            libc::free((*at).cast());
            at = at.add(1);
        }
        libc::free(strings.cast());
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_names_of_their_own() {
        let mut job = Job {
            nspace: "f".into(),
            node: 1,
            hosts: vec!["a".into(), "b".into()],
            tasks: vec![vec![0, 2], vec![1]],
            tmpdir: "/tmp".into(),
        };
        assert_eq!(job.names(), ["a", "b"]);
        assert_eq!(
            (job.layout().as_str(), job.size(), job.local()),
            ("0,2;1", 3, &[1][..])
        );
        job.hosts[1] = "a".into();
        assert_eq!(job.names(), ["a-0", "a-1"]);
    }
}

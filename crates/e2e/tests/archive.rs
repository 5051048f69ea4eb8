//! `flux archive`: files that are stored once and unpacked on every rank.

use e2e::Site;

/// A directory of files of all kinds.
const FILES: &str = "
    umask 022 && mkdir -p src/d/deep src/readonly &&
    printf hello >src/text && printf '\\0\\377' >src/raw && : >src/empty &&
    printf 'x%.0s' $(seq 1 1025) >src/d/first-large && head -c 3000000 /dev/urandom >src/d/deep/large &&
    truncate -s 4M src/hole && printf end >>src/hole && truncate -s 1M src/d/nothing &&
    ln -s d/deep src/link && ln -s nowhere src/dangling && chmod 750 src/d/first-large && chmod 555 src/readonly &&";

/// What there is below a directory: kind, permissions, name, target.
const LOOK: &str = "look() { (cd $1 && find . -printf '%y %m %p %l\\n' | sort); };";

/// Unpacks in a directory of the rank it runs on.
const UNPACK: &str = "umask 022; dir=out.$(flux getattr rank); mkdir $dir && flux archive extract --waitcreate -C $dir";

#[test]
fn every_rank_unpacks_what_one_stored() {
    let site = Site::new();
    site.write("unpack.sh", UNPACK);
    let script = format!(
        "{FILES} {LOOK} flux archive create --chunksize=100K src && flux archive list | sort -r | head -3 &&
        flux exec -r all sh unpack.sh && look src >want &&
        for rank in 0 1 2 3; do
            diff -r --no-dereference src out.$rank/src && look out.$rank/src | cmp - want && echo same
        done;
        test $(stat -c %b out.3/src/hole) -le $(stat -c %b src/hole) && echo sparse;
        chmod -R u+w src out.*"
    );
    let same = "src/text\nsrc/readonly\nsrc/raw\nsame\nsame\nsame\nsame\nsparse\n";
    site.script(4, &script).success().expect_stdout(same);
}

#[test]
fn mapped_files_are_read_where_they_are() {
    let site = Site::new();
    let script = "
        head -c 300000 /dev/urandom >big && flux archive create --mmap --chunksize=64K big &&
        flux exec -r 1 sh -c 'mkdir one && flux archive extract -C one' && cmp big one/big && echo same;
        printf 0123456789 | dd of=big conv=notrunc status=none; mkdir two;
        flux exec -r 0 flux archive extract -C two || echo refused; test -e two/big || echo none;
        : >big; flux archive extract -C two || echo refused;
        flux archive remove && flux archive list || echo gone; flux kvs put alive=1 && flux kvs get alive";
    let outcome = site.script(2, script).success();
    outcome
        .expect_stdout("same\nrefused\nnone\nrefused\ngone\n1\n")
        .expect_error(&["big", "changed since it was mapped"])
        .expect_error(&["archive.main does not exist"]);
}

#[test]
fn archives_grow_and_outlive_their_instance() {
    let site = Site::new();
    std::fs::create_dir(site.path().join("state")).unwrap();
    let run = |script: &'static str| site.flux(["start", "-Sstatedir=state", script]).success();
    run("umask 022; head -c 5000 /dev/urandom >a; head -c 5000 /dev/urandom >b; \
        flux archive create --preserve -n x a && flux archive create --preserve --append -n x b && flux kvs ls -1 archive.x_blobs")
    .expect_stdout("0\n1\n");
    run("mkdir out && flux archive extract -n x -C out && cmp a out/a && cmp b out/b && flux archive extract -t -v -n x 'b*'; \
        flux archive create --overwrite -n x a && flux archive list --long -n x; flux kvs ls -1 archive")
    .expect_stdout("f 0644     5000 b\nf 0644     5000 a\nx\n");
}

#[test]
fn nothing_is_written_elsewhere() {
    let site = Site::new();
    let object = |path: &str| {
        format!(r#"{{"path":"{path}","mode":33188,"data":"x","encoding":"utf-8","size":1}}"#)
    };
    let link = r#"{"path":"out","mode":41471,"data":".."}"#;
    let (up, through) = (object("../up"), object("out/through"));
    let script = format!(
        "mkdir in; flux kvs put archive.up='[{up}]' && flux archive extract -n up -C in || echo refused;
        flux kvs put archive.link='[{link},{through}]' && flux archive extract -n link -C in || echo refused;
        touch in/x; flux archive create -C in ../in/x || echo refused; rm in/x; ls in; test -e up || test -e through || echo clean"
    );
    let outcome = site.script(1, &script).success();
    outcome
        .expect_stdout("refused\nrefused\nrefused\nout\nclean\n")
        .expect_error(&["\"../up\""])
        .expect_error(&["out/through"])
        .expect_error(&["../in/x"]);
}

#[test]
fn jobs_find_their_files() {
    let site = Site::new();
    let script = "
        mkdir -p one/sub two && printf 1 >one/sub/a && head -c 9000 /dev/zero >two/b &&
        flux archive create -n one one && flux archive create -n two two &&
        flux run -N2 -o stage-in.names=one,two sh -c 'cmp one/sub/a $FLUX_JOB_TMPDIR/one/sub/a && cmp two/b $FLUX_JOB_TMPDIR/two/b && echo same';
        flux run -o stage-in.names=one -o 'stage-in.pattern=none*' sh -c 'ls $FLUX_JOB_TMPDIR | wc -l';
        flux run -o stage-in.names=three true || echo refused; flux run -o stage-in.bogus=1 true || echo refused";
    let outcome = site.script(2, script).success();
    outcome
        .expect_stdout("same\nsame\n0\nrefused\nrefused\n")
        .expect_error(&["archive.three"])
        .expect_error(&["stage-in.bogus"]);
}

#[test]
fn mistakes_are_named() {
    let site = Site::new();
    site.write("file", "x");
    for (script, words) in [
        ("flux archive create", &["PATH"][..]),
        (
            "flux archive create nonesuch",
            &["nonesuch", "No such file"],
        ),
        (
            "flux archive create -C nonesuch .",
            &["nonesuch", "No such file"],
        ),
        (
            "flux archive create /dev/null",
            &["/dev/null", "regular file"],
        ),
        (
            "flux archive create file && flux archive create file",
            &["archive.main", "--append"],
        ),
        (
            "flux archive create --mmap --preserve file",
            &["--mmap", "--preserve"],
        ),
        (
            "flux archive create --chunksize=x file",
            &["chunksize", "x"],
        ),
        ("flux archive extract", &["archive.main does not exist"]),
        (
            "flux archive extract --waitcreate=0.01s",
            &["archive.main", "timeout"],
        ),
        ("flux archive remove", &["archive.main does not exist"]),
        (
            "flux archive create file && flux archive extract",
            &["file", "--overwrite"],
        ),
        (
            "flux kvs put archive.main=1 && flux archive list",
            &["archive.main", "no list"],
        ),
    ] {
        site.script(1, script).expect_code(1).expect_error(words);
    }
}

# Our packages with the tools of the host instead of nixpkgs: see README.md.
{
  # Where cargo keeps the archives of crates.
  crates,
  # Directories of cargo, rustc and the other tools, as in PATH.
  path,
  # What pmix is installed in.
  pmix ? "/usr",
  system ? builtins.currentSystem,
}:
let
  target = "${builtins.head (builtins.split "-" system)}-unknown-linux-gnu";
  phase = name: text: "echo '== ${name}'\n${text}\n";

  shell =
    name: script: variables:
    derivation (
      variables
      // {
        inherit name system;
        PATH = path;
        builder = "/bin/bash";
        # Nix 2.8 may take the end of a builder for its death when its last process is slow to go.
        args = [
          "-c"
          ''
            set -eu
            runHook() { :; }
            patchShebangs() { :; }
            ${script}
            sleep 0.3 &
          ''
        ];
      }
    );

  lib = {
    inherit (builtins) concatMap head;
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    licenses.asl20 = "Apache-2.0";
    makeLibraryPath = packages: builtins.concatStringsSep ":" (map (package: "${package}/lib") packages);
    fileset = {
      unions = files: map toString files;
      toSource =
        { root, fileset }:
        let
          below = parent: child: builtins.substring 0 (builtins.stringLength parent + 1) "${child}/" == "${parent}/";
        in
        builtins.path {
          name = "source";
          path = root;
          filter = file: _: builtins.any (wanted: below wanted file || below file wanted) fileset;
        };
    };
  };

  # One directory with the crates of a lock file, each checked against it by Nix.
  vendor =
    lockFile:
    let
      locked = builtins.filter (package: package ? checksum) (lib.importTOML lockFile).package;
      archive =
        { name, version, checksum, ... }:
        builtins.path {
          name = "${name}-${version}.crate";
          path = "${crates}/${name}-${version}.crate";
          recursive = false;
          sha256 = checksum;
        };
      unpack = package: ''
        tar -xzf ${archive package} -C $out
        echo '{"files":{},"package":"${package.checksum}"}' > $out/${package.name}-${package.version}/.cargo-checksum.json
      '';
    in
    shell "crates" ("mkdir $out\n" + builtins.concatStringsSep "" (map unpack locked)) { };

  buildRustPackage =
    args:
    shell "${args.pname}-${args.version}"
      (
        phase "unpack" "cp -r ${args.src} source; chmod -R u+w source; cd source"
        + phase "configure" ''
          export HOME=$PWD/home
          mkdir -p home .cargo
          cat > .cargo/config.toml <<END
          [source.crates-io]
          replace-with = "locked"
          [source.locked]
          directory = "${vendor args.cargoLock.lockFile}"
          END
        ''
        + phase "build" ''
          CARGO_BUILD_TARGET=${target} cargo build -j "$NIX_BUILD_CORES" --target ${target} --offline --profile release \
            ${builtins.concatStringsSep " " args.cargoBuildFlags}
        ''
        + phase "install" args.installPhase
        + phase "fixup" (args.postFixup or "")
      )
      { }
    // {
      inherit (args) version src meta;
    };

  buildPythonPackage =
    args:
    shell "${args.pname}-${args.version}"
      (
        phase "build" ''
          cp -r ${args.src} source
          chmod -R u+w source
          python3 -m pip install --no-index --no-deps --no-cache-dir --no-build-isolation --no-compile --disable-pip-version-check --prefix $out ./source
        ''
        + phase "imports" (
          builtins.concatStringsSep "" (
            map (module: "PYTHONPATH=$(dirname $(find $out -name ${module}.py)) python3 -c 'import ${module}'\n") args.pythonImportsCheck
          )
        )
      )
      { };
  stdenv.hostPlatform.rust.cargoShortTarget = target;
  rustPlatform = { inherit buildRustPackage; };
in
rec {
  ferroflux = import ../package.nix {
    inherit lib pmix stdenv rustPlatform;
    pkg-config = null;
    zeromq = null;
    libsodium = null;
    hwloc = null;
    python3 = null;
    mpich = null;
    patchelf = null;
  };
  resource-query = import ../programs.nix {
    inherit lib stdenv rustPlatform ferroflux;
    pname = "resource-query";
    crates = [ "fluxion" ];
    programs = [
      "resource-query"
      "fluxion-sim"
    ];
  };
  python = import ../python.nix {
    inherit lib buildPythonPackage ferroflux;
    setuptools = null;
  };
}

# The programs, the PMI libraries, headers, manual pages and completions.
{
  lib,
  stdenv,
  rustPlatform,
  pkg-config,
  zeromq,
  libsodium,
  hwloc,
  python3,
  mpich,
  patchelf,
  pmix,
  doCheck ? false,
}:
let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = "ferroflux";
  inherit (manifest.workspace.package) version;
  inherit doCheck;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../LICENSE
      ../README.md
      ../ARCHITECTURE.md
      ../crates
      ../docs
      ../etc
      ../examples
      ../fuzz/corpus
      ../scripts
      ../xtask
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [
    pkg-config
    patchelf
  ];
  buildInputs = [
    zeromq
    libsodium
    hwloc
  ];
  nativeCheckInputs = [
    python3
    mpich
  ];

  cargoBuildFlags = [
    "--workspace"
    "--bins"
    "--lib"
  ];

  # cargoInstallHook knows programs only; ours has the rest.
  dontCargoInstall = true;
  installPhase = ''
    runHook preInstall
    patchShebangs scripts
    BINDIR=target/${stdenv.hostPlatform.rust.cargoShortTarget}/release PREFIX=$out STRIP= scripts/install.sh
    runHook postInstall
  '';

  # libpmix is loaded when a job asks for it: the shell has to know where it is.
  postFixup = ''
    patchelf --add-rpath ${lib.makeLibraryPath [ pmix ]} $out/bin/flux-shell
  '';

  passthru = { inherit mpich pmix; };

  meta = {
    description = "The Flux resource manager, implemented anew in Rust";
    license = lib.licenses.asl20;
    mainProgram = "flux";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}

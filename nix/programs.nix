# Programs of ours that need no library but the C library.
{
  lib,
  stdenv,
  rustPlatform,
  ferroflux,
  pname,
  crates,
  programs,
}:
rustPlatform.buildRustPackage {
  inherit pname;
  inherit (ferroflux) version src;
  doCheck = false;
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = lib.concatMap (crate: [
    "--package"
    crate
  ]) crates ++ [ "--bins" ];
  dontCargoInstall = true;
  installPhase = ''
    runHook preInstall
    for program in ${toString programs}; do
      install -D -m 755 target/${stdenv.hostPlatform.rust.cargoShortTarget}/release/$program $out/bin/$program
    done
    runHook postInstall
  '';
  meta = ferroflux.meta // {
    mainProgram = lib.head programs;
  };
}

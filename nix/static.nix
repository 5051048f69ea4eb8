# What needs no library but the C library, linked with musl: it runs on any Linux.
{
  stdenv,
  rustPlatform,
  ferroflux,
}:
rustPlatform.buildRustPackage {
  pname = "ferroflux-static";
  inherit (ferroflux) version src;
  doCheck = false;
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [
    "--package"
    "fluxion"
    "--package"
    "cli"
    "--bins"
  ];
  dontCargoInstall = true;
  installPhase = ''
    runHook preInstall
    for program in flux resource-query fluxion-sim; do
      install -D -m 755 target/${stdenv.hostPlatform.rust.cargoShortTarget}/release/$program $out/bin/$program
    done
    runHook postInstall
  '';
  meta = ferroflux.meta // {
    mainProgram = "flux";
  };
}

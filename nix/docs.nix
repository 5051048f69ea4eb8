# The API's documentation, as `cargo doc` makes it.
{ ferroflux }:
ferroflux.overrideAttrs (_: {
  pname = "ferroflux-docs";
  buildPhase = ''
    runHook preBuild
    cargo doc --workspace --no-deps --offline
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    mkdir -p $out/share/doc/ferroflux
    cp -r target/doc $out/share/doc/ferroflux/api
    runHook postInstall
  '';
  postFixup = "";
})

# What a change has to pass, under Nix.
pkgs:
let
  inherit (pkgs) lib;
  tests = [
    "cluster"
    "faults"
  ];
  checked =
    name: command:
    pkgs.ferroflux.overrideAttrs (_: {
      pname = "ferroflux-${name}";
      buildPhase = ''
        runHook preBuild
        ${command}
        runHook postBuild
      '';
      installPhase = "touch $out";
      postFixup = "";
    });
in
{
  build = pkgs.ferroflux;
  tests = pkgs.ferroflux.override { doCheck = true; };
  clippy = checked "clippy" "cargo clippy --workspace --all-targets --offline -- -D warnings";
  fmt = checked "fmt" "cargo fmt --check";
  module = import ./module-check.nix { inherit pkgs; };
}
// lib.genAttrs (map (name: "vm-${name}") tests) (
  name: import ./vm-test.nix { inherit pkgs; name = lib.removePrefix "vm-" name; }
)

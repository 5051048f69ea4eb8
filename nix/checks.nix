# What a change has to pass, under Nix.
pkgs:
let
  inherit (pkgs) lib;
  tests = [
    "cluster"
    "faults"
    "users"
  ];
  checked =
    name: tool: command:
    pkgs.ferroflux.overrideAttrs (built: {
      pname = "ferroflux-${name}";
      nativeBuildInputs = built.nativeBuildInputs ++ [ tool ];
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
  clippy = checked "clippy" pkgs.clippy "cargo clippy --workspace --all-targets --offline -- -D warnings";
  fmt = checked "fmt" pkgs.rustfmt "cargo fmt --check";
  module = import ./module-check.nix { inherit pkgs; };
}
// lib.genAttrs (map (name: "vm-${name}") tests) (
  name: import ./vm-test.nix { inherit pkgs; name = lib.removePrefix "vm-" name; }
)

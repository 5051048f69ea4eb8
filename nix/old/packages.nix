# What packages have come since 2020, as far as we use them.
final: prev:
let
  missing =
    name: derivation { inherit name; inherit (prev.stdenv.hostPlatform) system; builder = "/bin/false"; } // { meta = { }; };
  absent = names: prev.lib.genAttrs (prev.lib.filter (name: !(prev ? ${name})) names) missing;
in
absent [
  "cargo-nextest"
  "cargo-deny"
  "nixfmt-rfc-style"
  "pmix"
  "typst"
]
// {
  # Haskell's packages are left out of trees that have to be small.
  pandoc = missing "pandoc";
  shellcheck = missing "shellcheck";
  # It was not for aarch64 then.
  libfabric = missing "libfabric";
  rustPlatform = prev.rustPlatform // {
    buildRustPackage =
      args:
      if !(args ? cargoLock) then
        prev.rustPlatform.buildRustPackage args
      else
      prev.stdenv.mkDerivation (
        removeAttrs args [ "cargoLock" ]
        // {
          # The lock file has to be there.
          lock = builtins.readFile args.cargoLock.lockFile;
        }
      );
  };
  python3Packages = prev.lib.foldl' (
    packages: extension: packages // extension final.python3Packages packages
  ) prev.python3Packages (final.pythonPackagesExtensions or [ ]);
  dockerTools = prev.dockerTools // {
    fakeNss = missing "fake-nss";
  };
  formats.toml = _: {
    type =
      with prev.lib.types;
      let
        value = (oneOf [ bool int float str path (attrsOf value) (listOf value) ]) // {
          description = "TOML value";
        };
      in
      attrsOf value;
    generate = name: value: prev.writeText name (builtins.toJSON value);
  };
  writeShellApplication =
    { name, runtimeInputs ? [ ], text }:
    prev.writeShellScriptBin name ''
      export PATH=${prev.lib.makeBinPath runtimeInputs}:$PATH
      ${text}
    '';
  testers.runNixOSTest =
    { name, nodes, testScript, ... }:
    prev.linkFarm name (
      prev.lib.mapAttrsToList (node: module: {
        name = node;
        path =
          (import (prev.path + "/nixos/lib/eval-config.nix") {
            inherit (prev.stdenv.hostPlatform) system;
            modules = [
              module
              {
                # What a test's machine has besides.
                options.virtualisation.memorySize = prev.lib.mkOption { type = prev.lib.types.int; };
                config = {
                  boot.isContainer = true;
                  networking.hostName = node;
                };
              }
            ];
          }).config.system.build.toplevel;
      }) nodes
      ++ [ { name = "script"; path = prev.writeText "script.py" testScript; } ]
    );
}

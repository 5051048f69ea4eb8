{
  description = "Ferroflux: the Flux resource manager, implemented anew in Rust";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = f: nixpkgs.lib.genAttrs systems (system: f (import ./nix/pkgs.nix { inherit nixpkgs self system; }));
    in
    {
      overlays.default = import ./nix/overlay.nix { src = self; };
      nixosModules.default = import ./nix/module { inherit self; };
      nixosConfigurations.demo = import ./nix/demo.nix { inherit nixpkgs self; };

      packages = each (import ./nix/packages.nix);
      apps = each (import ./nix/apps.nix);
      devShells = each (import ./nix/dev-shell.nix);
      checks = each (import ./nix/checks.nix);
      formatter = each (pkgs: pkgs.nixfmt-rfc-style);
    };
}

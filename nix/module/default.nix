# services.flux: a node of a system instance.
{ self }:
{
  imports = [
    ./options.nix
    ./config.nix
    ./units.nix
    ./assertions.nix
  ];
  nixpkgs.overlays = [ self.overlays.default ];
}

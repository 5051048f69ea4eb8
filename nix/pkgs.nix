# nixpkgs of one system, with our packages in it.
{
  nixpkgs,
  self,
  system,
}:
import nixpkgs {
  inherit system;
  overlays = [ self.overlays.default ];
}

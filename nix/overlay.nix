# What this repository adds to nixpkgs.
{ src }:
final: _prev: {
  ferroflux = final.callPackage ./package.nix { };
  ferroflux-docs = final.callPackage ./docs.nix { };
  ferroflux-image = final.callPackage ./image.nix { };
  ferroflux-static = final.pkgsStatic.callPackage ./static.nix { inherit (final) ferroflux; };
  ferroflux-paper = final.callPackage ./paper.nix { inherit src; };
}

# What this repository adds to nixpkgs.
{ src }:
final: _prev: {
  ferroflux = final.callPackage ./package.nix { inherit src; };
  ferroflux-docs = final.callPackage ./docs.nix { inherit src; };
  ferroflux-image = final.callPackage ./image.nix { };
  ferroflux-paper = final.callPackage ./paper.nix { inherit src; };
}

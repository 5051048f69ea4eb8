# What this repository adds to nixpkgs.
{ src }:
final: prev: {
  ferroflux = final.callPackage ./package.nix { };
  ferroflux-docs = final.callPackage ./docs.nix { };
  ferroflux-image = final.callPackage ./image.nix { };
  ferroflux-paper = final.callPackage ./paper.nix { inherit src; };
  resource-query = final.callPackage ./programs.nix {
    pname = "resource-query";
    crates = [ "fluxion" ];
    programs = [
      "resource-query"
      "fluxion-sim"
    ];
  };
  # Linked with musl: it runs on any Linux.
  ferroflux-static = final.pkgsStatic.callPackage ./programs.nix {
    inherit (final) ferroflux;
    pname = "ferroflux-static";
    crates = [
      "cli"
      "fluxion"
    ];
    programs = [
      "flux"
      "resource-query"
      "fluxion-sim"
    ];
  };
  # For the Python of whoever asks for it.
  pythonPackagesExtensions = (prev.pythonPackagesExtensions or [ ]) ++ [
    (python: _: { ferroflux-plugin = python.callPackage ./python.nix { inherit (final) ferroflux; }; })
  ];
}

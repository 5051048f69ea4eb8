pkgs: {
  default = pkgs.ferroflux;
  inherit (pkgs) ferroflux resource-query;
  docs = pkgs.ferroflux-docs;
  image = pkgs.ferroflux-image;
  static = pkgs.ferroflux-static;
  paper = pkgs.ferroflux-paper;
  python = pkgs.python3Packages.ferroflux-plugin;
}

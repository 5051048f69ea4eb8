pkgs: {
  default = pkgs.ferroflux;
  inherit (pkgs) ferroflux;
  docs = pkgs.ferroflux-docs;
  image = pkgs.ferroflux-image;
  static = pkgs.ferroflux-static;
  paper = pkgs.ferroflux-paper;
}

pkgs: {
  default = pkgs.ferroflux;
  inherit (pkgs) ferroflux;
  docs = pkgs.ferroflux-docs;
  image = pkgs.ferroflux-image;
  paper = pkgs.ferroflux-paper;
}

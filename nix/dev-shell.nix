# All that building, testing and measuring needs.
pkgs: {
  default = pkgs.mkShell {
    inputsFrom = [ pkgs.ferroflux ];
    packages = [
      pkgs.cargo
      pkgs.cargo-deny
      pkgs.cargo-nextest
      pkgs.clippy
      pkgs.rustfmt
      pkgs.mpich
      pkgs.openmpi
      pkgs.pmix
      pkgs.libfabric
      pkgs.sqlite
      pkgs.python3
      pkgs.qemu
      pkgs.typst
    ];
  };
}

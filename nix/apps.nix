# `nix run` is the main job: four brokers, two MPI programs in them.
pkgs:
let
  run = pkgs.writeShellApplication {
    name = "ferroflux-run";
    runtimeInputs = [
      pkgs.ferroflux
      pkgs.mpich
      pkgs.gcc
    ];
    text = ''
      work=$(mktemp -d)
      trap 'rm -rf "$work"' EXIT
      for name in ring allreduce; do
        mpicc -std=c11 -O2 -o "$work/$name" ${../examples}/$name.c
      done
      exec flux start -s4 flux run -N4 -n4 "$work/ring"
    '';
  };
in
{
  default = {
    type = "app";
    program = "${run}/bin/ferroflux-run";
  };
  flux = {
    type = "app";
    program = "${pkgs.ferroflux}/bin/flux";
  };
}

# A scenario of vm-tests/ on NixOS.
{ pkgs, name }:
let
  certificate = pkgs.runCommand "flux.cert" { } "${pkgs.ferroflux}/bin/flux keygen $out";
  node =
    role:
    { lib, ... }:
    {
      imports = [ (import ./module { self.overlays.default = _: _: { inherit (pkgs) ferroflux; }; }) ];
      environment.systemPackages = [ pkgs.mpich ];
      # A test's certificate may be read by all: copied, because brokers refuse one that others can read.
      systemd.tmpfiles.rules = [ "C /etc/flux/system/curve.cert 0400 flux flux - ${certificate}" ];
      services.flux = {
        enable = true;
        inherit role;
        hosts = [ "head" "node1" "node2" ];
        certificate = "/etc/flux/system/curve.cert";
        interface = "eth1";
        openFirewall = true;
      };
      virtualisation.memorySize = lib.mkDefault 1024;
    };
in
pkgs.testers.runNixOSTest {
  name = "ferroflux-${name}";
  nodes = {
    head = node "leader";
    node1 = node "compute";
    node2 = node "compute";
  };
  testScript = builtins.readFile ../vm-tests/${name}.py;
}

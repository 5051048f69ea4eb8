# The module says what is wrong, and generates what is right.
{ pkgs }:
let
  inherit (pkgs) lib;
  node =
    settings:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit (pkgs.stdenv.hostPlatform) system;
      modules = [
        (import ./module { self.overlays.default = _: _: { inherit (pkgs) ferroflux; }; })
        {
          boot.isContainer = true;
          networking.hostName = "head";
          system.stateVersion = "26.05";
          services.flux = {
            enable = true;
          }
          // settings;
        }
      ];
    }).config;
  complaints = settings: map (a: a.message) (lib.filter (a: !a.assertion) (node settings).assertions);
  complains = about: settings: lib.any (lib.hasInfix about) (complaints settings);
  good = {
    role = "leader";
    hosts = [
      "head"
      "node1"
    ];
    certificate = "/run/keys/flux.cert";
  };
  unit = (node good).systemd.services.flux;
  facts = {
    "a good node has no complaints" = complaints good == [ ];
    "a node without hosts" = complains "services.flux.hosts" (good // { hosts = [ ]; });
    "several hosts without a certificate" = complains "flux keygen" (good // { certificate = null; });
    "a certificate in the store" = complains "in the Nix store" (
      good // { certificate = "${builtins.storeDir}/x"; }
    );
    "a leader that is not the first host" = complains "services.flux.role" (
      good // { hosts = [ "node1" "head" ]; }
    );
    "login nodes that would get jobs" = complains "login nodes" (good // { role = "login"; });
    "tools alone have no unit" = !((node (good // { role = "tools"; })).systemd.services ? flux);
    "the broker is told where its configuration is" =
      lib.hasInfix "--config-path=/etc/flux/system/conf.d" unit.serviceConfig.ExecStart;
  };
  wrong = lib.attrNames (lib.filterAttrs (_: holds: !holds) facts);
in
assert lib.assertMsg (wrong == [ ]) "services.flux: not so: ${lib.concatStringsSep "; " wrong}";
pkgs.runCommand "ferroflux-module" { } "touch $out"

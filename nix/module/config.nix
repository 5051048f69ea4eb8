# The files of /etc/flux, the user, the network.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.flux;
  toml = pkgs.formats.toml { };
  script = name: text: pkgs.writeShellScript "flux-${name}" text;
  given = lib.filterAttrs (_: value: value != null && value != { } && value != [ ]);
  # Each node of a job runs it; rank 0 starts it there.
  perNode = name: text: {
    per-rank = true;
    command = [ "${script name text}" ];
  };
  generated = given {
    bootstrap = given {
      curve_cert = cfg.certificate;
      default_port = cfg.port;
      default_bind = "tcp://${if cfg.interface == null then "*" else cfg.interface}:%p";
      default_connect = "tcp://%h:%p";
      hosts = map (host: { inherit host; }) cfg.hosts;
    };
    tbon.topo = cfg.topology;
    resource = given {
      inherit (cfg.resources) config exclude;
      path = cfg.resources.file;
    };
    inherit (cfg) queues policy;
    job-manager = given {
      prolog = if cfg.prolog == null then null else perNode "prolog" cfg.prolog;
      epilog = if cfg.epilog == null then null else perNode "epilog" cfg.epilog;
      housekeeping =
        if cfg.housekeeping == null then
          null
        else
          { command = [ "${script "housekeeping" cfg.housekeeping}" ]; };
    };
  };
in
{
  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      { environment.systemPackages = [ cfg.package ]; }
      (lib.mkIf (cfg.role != "tools") {
        environment.etc."flux/system/conf.d/flux.toml".source = toml.generate "flux.toml" (
          lib.recursiveUpdate generated cfg.settings
        );
        users.users.flux = {
          isSystemUser = true;
          group = "flux";
          home = "/var/lib/flux";
          description = "Owner of the Flux system instance";
        };
        users.groups.flux = { };
        networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];
        services.munge = lib.mkIf (cfg.mungeKey != null) {
          enable = true;
          password = cfg.mungeKey;
        };
      })
    ]
  );
}

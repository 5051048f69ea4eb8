# What cannot be meant, said before the system is built.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.flux;
  several = lib.length cfg.hosts > 1 || lib.any (host: lib.hasInfix "[" host) cfg.hosts;
  # A hostlist such as head[0-1] is not looked into: its first host may be this one.
  leads =
    let
      first = lib.head (cfg.hosts ++ [ "" ]);
    in
    lib.hasInfix "[" first || first == config.networking.hostName;
  stored = path: path != null && lib.hasPrefix builtins.storeDir path;
  ways = lib.count (x: x) [
    cfg.resources.discover
    (cfg.resources.config != [ ])
    (cfg.resources.file != null)
  ];
in
{
  config = lib.mkIf (cfg.enable && cfg.role != "tools") {
    assertions = [
      {
        assertion = cfg.hosts != [ ];
        message = "services.flux.hosts: name the hosts of the instance, the leader first.";
      }
      {
        assertion = several -> cfg.certificate != null;
        message = "services.flux.certificate: brokers of several hosts need a certificate; make one with `flux keygen flux.cert` and give its path on the nodes, as a string.";
      }
      {
        assertion = !stored cfg.certificate;
        message = "services.flux.certificate: ${cfg.certificate} is in the Nix store, where everybody can read it; give a path outside, as a string.";
      }
      {
        assertion = !stored cfg.mungeKey;
        message = "services.flux.mungeKey: ${cfg.mungeKey} is in the Nix store, where everybody can read it; give a path outside, as a string.";
      }
      {
        assertion = ways <= 1;
        message = "services.flux.resources: discover, config and file exclude each other; say only one.";
      }
      {
        assertion = cfg.role == "leader" -> (cfg.hosts == [ ] || config.networking.hostName == "" || leads);
        message = "services.flux.role: the leader is the first of services.flux.hosts (${lib.head (cfg.hosts ++ [ "nobody" ])}), but this host is ${config.networking.hostName}.";
      }
      {
        assertion = cfg.role == "login" -> cfg.resources.exclude != null;
        message = "services.flux.resources.exclude: name the login nodes, or they get jobs.";
      }
      {
        assertion = !(cfg.accounting.enable || cfg.multiUser.enable);
        message = "services.flux: accounting and multiUser are for a later version.";
      }
    ];
  };
}

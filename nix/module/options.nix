# What can be said of a node and of the instance it belongs to.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
  cfg = config.services.flux;
  toml = pkgs.formats.toml { };
  script =
    what:
    mkOption {
      type = types.nullOr types.lines;
      default = null;
      description = "Shell commands that run as root on each node of a job ${what}. A failure drains the node.";
    };
in
{
  options.services.flux = {
    enable = mkEnableOption "the Flux resource manager";

    package = lib.mkPackageOption pkgs "ferroflux" { };

    role = mkOption {
      type = types.enum [
        "leader"
        "compute"
        "login"
        "tools"
      ];
      default = "compute";
      description = ''
        What this node is: `leader` runs rank 0, which has the queue and the store; `compute` runs jobs; `login` belongs to
        the instance but runs no jobs; `tools` has the commands only.
      '';
    };

    hosts = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      example = [
        "head"
        "node[1-64]"
      ];
      description = "Hosts of the instance in the order of their ranks, as hostlists (RFC 29). The first is the leader.";
    };

    topology = mkOption {
      type = types.str;
      default = "kary:32";
      example = "binomial";
      description = "Shape of the tree that brokers form: broker attribute `tbon.topo`.";
    };

    interface = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "eth0";
      description = "Network interface that brokers listen on; null is all.";
    };

    port = mkOption {
      type = types.port;
      default = 8050;
      description = "TCP port that brokers listen on.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether other brokers may reach the port.";
    };

    certificate = mkOption {
      type = types.nullOr types.path;
      default = null;
      # A string: a path would be copied into the store, for all to read.
      apply = value: if value == null then null else toString value;
      example = "/run/keys/flux.cert";
      description = "The CURVE certificate all brokers share, made by {command}`flux keygen`. It stays outside the Nix store.";
    };

    mungeKey = mkOption {
      type = types.nullOr types.path;
      default = null;
      apply = value: if value == null then null else toString value;
      example = "/run/keys/munge.key";
      description = "Key of munge(7), for the time when several users share the instance. It stays outside the Nix store.";
    };

    resources = {
      discover = mkOption {
        type = types.bool;
        default = cfg.resources.config == [ ] && cfg.resources.file == null;
        defaultText = lib.literalMD "whether nothing else is said of the resources";
        description = "Whether nodes tell themselves what they have (hwloc).";
      };
      config = mkOption {
        type = types.listOf toml.type;
        default = [ ];
        example = [
          {
            hosts = "node[1-64]";
            cores = "0-31";
            gpus = "0-3";
            properties = [ "batch" ];
          }
        ];
        description = "Resources by hosts: entries of `resource.config` in flux-config-resource(5).";
      };
      file = mkOption {
        type = types.nullOr types.path;
        default = null;
        description = "A file with R (RFC 20), as {command}`flux R encode` makes it.";
      };
      exclude = mkOption {
        type = types.nullOr types.nonEmptyStr;
        default = null;
        example = "head";
        description = "Ranks or hosts that run no jobs.";
      };
    };

    queues = mkOption {
      type = types.attrsOf toml.type;
      default = { };
      example = {
        debug.policy.limits.duration = "30m";
        batch.requires = [ "batch" ];
      };
      description = "Queues: the table of flux-config-queues(5).";
    };

    policy = mkOption {
      inherit (toml) type;
      default = { };
      example = {
        jobspec.defaults.system = {
          duration = "1h";
          queue = "batch";
        };
      };
      description = "Defaults and limits of jobs: the table of flux-config-policy(5).";
    };

    prolog = script "before it starts";
    epilog = script "after it has ended";
    housekeeping = script "once it has given its resources back, before others get them";

    attributes = mkOption {
      type = types.attrsOf (
        types.oneOf [
          types.str
          types.int
        ]
      );
      default = { };
      example = {
        "log-stderr-level" = 7;
      };
      description = "Further broker attributes, flux-broker-attributes(7).";
    };

    settings = mkOption {
      inherit (toml) type;
      default = { };
      description = "Anything else that flux-config(5) knows, as Nix values. What is said here counts more than other options.";
    };

    accounting.enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether jobs are accounted to banks. For a later version.";
    };

    multiUser.enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether others than the owner of the instance may run jobs. For a later version.";
    };
  };
}

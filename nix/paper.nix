# The paper, from its sources and the measurements that are in the repository.
{
  stdenvNoCC,
  typst,
  python3,
  src,
}:
stdenvNoCC.mkDerivation {
  pname = "ferroflux-paper";
  version = "0";
  inherit src;
  nativeBuildInputs = [
    typst
    python3
  ];
  buildPhase = ''
    runHook preBuild
    TYPST=typst paper/build paper.pdf
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    install -D -m 644 paper.pdf $out/paper.pdf
    runHook postInstall
  '';
}
